#!/usr/bin/env bash
# The main job on the embedded default: mount, write a source tree and a large
# file with ordinary tools, pack the small files, lose two of six stores, read
# everything back from the other four, undelete.
# usage: demo.sh BINDIR
# MARFS_DEMO_DIR: where to work (default: a temporary directory; needs about 8 GiB)
# MARFS_DEMO_SIZE: bytes of the large file (default 2 GiB)
# MARFS_DEMO_TREE: the source tree (default: Go's own; a smaller one needs fmt/ and net/)
set -euo pipefail
bin=$(cd "${1:?usage: demo.sh BINDIR}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
size=${MARFS_DEMO_SIZE:-$((2 << 30))}
tree=${MARFS_DEMO_TREE:-$(go env GOROOT)/src}
base=${MARFS_DEMO_DIR:-${TMPDIR:-/tmp}}
work=$(mktemp -d "$base/marfs-demo.XXXXXX")
mnt=$work/mnt
out=$mnt/home

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
now() { date +%s%N; }
rate() { # rate BYTES FILES START
  awk -v b="$1" -v f="$2" -v ns="$(($(now) - $3))" 'BEGIN {
    t = ns / 1e9; printf "   %.1f s   %.0f MB/s", t, b / t / 1e6; if (f > 1) printf "   %.0f files/s", f / t; print "" }'
}
unmount() { mountpoint -q "$mnt" || return 0; if [ "$(id -u)" = 0 ]; then umount "$mnt"; else fusermount3 -u "$mnt"; fi; }
cleanup() {
  unmount 2>/dev/null || { [ "$(id -u)" = 0 ] && umount -l "$mnt" || fusermount3 -uz "$mnt"; } 2>/dev/null || true
  for _ in $(seq 100); do grep -qsa "marfs-fuse.*$work" /proc/[0-9]*/cmdline || break; sleep 0.1; done
  chmod -R u+w "$work" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
for tool in tar cmp diff awk; do command -v $tool >/dev/null || { echo "demo: needs $tool (install it and run again)" >&2; exit 2; }; done
if [ "$(id -u)" != 0 ] && ! command -v fusermount3 >/dev/null; then
  echo "demo: an ordinary user needs fusermount3 (package fuse3)" >&2; exit 2
fi

say "1. Six directory stores, 4 data + 2 parity, one namespace (configs/quickstart.yaml)"
cp "$here/../configs/quickstart.yaml" "$work/marfs.yaml"
export MARFS_CONFIG=$work/marfs.yaml
"$bin/marfsctl" init
mkdir -p "$mnt"
"$bin/marfs-fuse" --log-file "$work/log" "$mnt"
df -h "$out" | sed 's/^/   /'

say "2. Copy $tree through the mount with cp -a"
files=$(find "$tree" -type f | wc -l); bytes=$(du -sb "$tree" | cut -f1)
echo "   $files files, $bytes bytes"
t=$(now); cp -a "$tree" "$out/src"; rate "$bytes" "$files" "$t"

say "3. A file of $size random bytes, through the mount with cp"
head -c "$size" /dev/urandom >"$work/big"
t=$(now); cp "$work/big" "$out/big"; rate "$size" 1 "$t"

say "4. The same tree as a tar archive, and unpacked again on the mount"
tar -C "$tree" -cf "$out/src.tar" .
mkdir "$out/untar"
t=$(now); tar -C "$out/untar" -xf "$out/src.tar" ./fmt ./net; rate "$(du -sb "$tree/fmt" "$tree/net" | awk '{s+=$1} END {print s}')" "$(find "$tree/fmt" "$tree/net" -type f | wc -l)" "$t"

say "5. Small files wait in the metadata filesystem; the mount packs them by and by, this packs the rest"
unmount
"$bin/marfsctl" status | sed -n '/STAGED/,/^$/p' | sed '/^$/d; s/^/   /'
"$bin/marfsctl" pack --all --release | sed 's/^/   /'
left=$("$bin/marfsctl" --json status | grep -cE '"(files|resident)": 0,' || true)
[ "$left" = 2 ] || { echo "demo: not all is packed and released" >&2; exit 1; }
echo "   $(find "$work/metadata/home/files" -type f | wc -l) files are in $(find "$work/stores/s0/home" -type f | wc -l) objects; no byte of them is in the metadata filesystem any more"

say "6. Where the bytes are"
"$bin/marfsctl" stat "$out/src/fmt/print.go" "$out/big" | cut -c1-150 | head -46

say "7. Two of the six stores are lost"
for s in 1 4; do echo "   emptying ${work##*/}/stores/s$s"; find "$work"/stores/s$s -mindepth 1 -delete; done
if [ "$(id -u)" = 0 ]; then sync; echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || true; fi
"$bin/marfs-fuse" --log-file "$work/log" "$mnt"
grep -o 'msg="store left out".*error="[^"]*"' "$work/log" | sed 's/^/   log: /'

say "8. Read back and compare, bit by bit"
t=$(now); cmp "$work/big" "$out/big"; rate "$size" 1 "$t"
t=$(now); diff -r "$tree" "$out/src"; rate "$bytes" "$files" "$t"
diff -r "$tree/fmt" "$out/untar/fmt"; diff -r "$tree/net" "$out/untar/net"
tar -C "$tree" -df "$out/src.tar"
echo "   all equal"

say "9. Remove a directory and have it back; overwrite a file and read what it was"
rm -r "$out/untar/fmt"
undelete() { "$bin/marfsctl" "$@" --through-mount; } # as every user does; root could do without the mount
t=$(now); undelete trash restore "$out/untar/fmt" | tail -2 | cut -c1-150 | sed 's/^/   /'
rate "$(du -sb "$tree/fmt" | cut -f1)" "$(find "$tree/fmt" -type f | wc -l)" "$t"
diff -r "$tree/fmt" "$out/untar/fmt"
echo "overwritten" >"$out/untar/fmt/print.go"
undelete versions "$out/untar/fmt/print.go" | sed 's/^/   /'
version=$(undelete versions "$out/untar/fmt/print.go" | awk 'NR == 2 {print $1}')
undelete versions "$out/untar/fmt/print.go" --cat "$version" | cmp - "$tree/fmt/print.go"
undelete trash restore --version "$version" "$out/untar/fmt/print.go" | cut -c1-150 | sed 's/^/   /'
cmp "$out/untar/fmt/print.go" "$tree/fmt/print.go"
echo "   all equal"
unmount

say "Done; nothing is left behind. To keep one:"
cat <<EOF
   mkdir ~/marfs && cp configs/quickstart.yaml ~/marfs/marfs.yaml
   export MARFS_CONFIG=~/marfs/marfs.yaml
   $bin/marfsctl init && mkdir ~/marfs/mnt && $bin/marfs-fuse ~/marfs/mnt
EOF
