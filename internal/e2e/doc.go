// Package e2e tests MarFS as its users meet it: programs that copy, read and
// overwrite files on real mounts, over real stores, some of which fail meanwhile.
//
//	go test ./internal/e2e          # a few minutes; what CI runs
//	go test ./internal/e2e -long    # larger files, many more crashes
package e2e
