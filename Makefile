# Targets that people run; CI runs `make test`.
GO       ?= go
BIN      := bin
PREFIX   ?= /usr/local
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -X marfs/internal/version.Version=$(VERSION)
FUZZTIME ?= 15s

# Tools, pinned; `go run` fetches and caches them.
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: build test race lint fuzz bench demo install clean

build: ## both programs into bin/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

test: ## everything CI checks: vet, then all tests (mounts and a real S3 server included)
	$(GO) vet ./...
	$(GO) test -timeout 20m ./...

race: ## the same tests under the race detector
	$(GO) test -race -timeout 40m ./...

lint:
	$(GO) run $(GOLANGCI) run ./...

fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

bench: build ## measures this machine: our code and its limit or peer in one run, as ratios
	$(GO) run ./internal/bench -bin $(BIN)

demo: build ## mount, write, pack, lose two stores, read back, undelete; leaves nothing behind
	./deploy/demo.sh $(BIN)

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin
	install -m 0755 $(BIN)/marfsctl $(DESTDIR)$(PREFIX)/bin/marfsctl
	install -m 0755 $(BIN)/marfs-fuse $(DESTDIR)$(PREFIX)/bin/marfs-fuse
	ln -sf ../bin/marfs-fuse $(DESTDIR)$(PREFIX)/sbin/mount.fuse.marfs

clean:
	rm -rf $(BIN)
