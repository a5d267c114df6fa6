package config

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"marfs/pkg/objfmt"
	"marfs/pkg/repo"
)

// maxChunk is the limit of a repo's chunks: more is no use. A bucket takes less, and
// the limits of the geometry are objfmt's.
const maxChunk = 5 << 40

func (k *checker) repo(key string, r *Repo) {
	k.require(key, "data", "parity", "pods")
	k.geometry(key, r)
	names := map[string]string{}
	for i := range r.Pods {
		at := fmt.Sprintf("%s.pods[%d]", key, i)
		p := &r.Pods[i]
		k.name(at+".name", p.Name, names)
		k.require(at, "stores")
		atLeast(k, at+".weight", p.Weight, 0)
		if n := r.Data + r.Parity; k.given(at+".stores") && !k.badGeometry(key) && len(p.Stores) != n {
			k.complain(at+".stores", len(p.Stores), fmt.Sprintf("must be %d stores, one for each of %d data and %d parity shards", n, r.Data, r.Parity),
				"add or remove stores of the pod, or change data and parity before the first init")
		}
		for j := range p.Stores {
			k.store(fmt.Sprintf("%s.stores[%d]", at, j), &p.Stores[j])
		}
	}
	k.weights(key+".pods", r.Pods)
}

// weights checks that new objects have somewhere to go.
func (k *checker) weights(key string, pods []Pod) {
	if len(pods) == 0 {
		if k.given(key) {
			k.complain(key, nil, "is empty", "describe at least one pod")
		}
		return
	}
	if !slices.ContainsFunc(pods, func(p Pod) bool { return p.Weight != 0 }) {
		k.complain(key, nil, "all have weight 0: new objects have nowhere to go", "give one pod a weight")
	}
}

func (k *checker) geometry(key string, r *Repo) {
	if k.given(key + ".data") {
		atLeast(k, key+".data", r.Data, 1)
	}
	if atLeast(k, key+".parity", r.Parity, 0) && r.Parity == 0 && k.given(key+".parity") {
		k.warn(key+".parity", 0, "survives no loss: without any one of its stores no object can be read", "1 or more, with as many more stores")
	}
	if n := r.Data + r.Parity; n > objfmt.MaxShards {
		k.complain(key+".parity", r.Parity, fmt.Sprintf("makes data + parity %d: must be at most %d", n, objfmt.MaxShards), "")
	}
	k.blocks(key, r)
	if k.badGeometry(key) {
		return
	}
	if !k.given(key + ".min_write") {
		r.MinWrite = repo.DefaultMinWrite(r.geometry())
		return
	}
	least := r.Data + min(r.Parity, 1)
	if r.MinWrite < least || r.MinWrite > r.Data+r.Parity {
		k.complain(key+".min_write", r.MinWrite, fmt.Sprintf("must be from %d to %d with %d+%d", least, r.Data+r.Parity, r.Data, r.Parity),
			"at least one shard more than data, or an acknowledged object could not lose any")
	}
}

// badGeometry reports whether a mistake in the repo's geometry is reported or
// evident already, so that rules which build on it would only mislead.
func (k *checker) badGeometry(key string) bool {
	for _, sub := range []string{".data", ".parity", ".block_size"} {
		if k.failed[key+sub] {
			return true
		}
	}
	return !k.given(key+".data") || !k.given(key+".parity")
}

func (k *checker) blocks(key string, r *Repo) {
	shape := objfmt.Geometry{Data: 1, Block: int(min(r.BlockSize, objfmt.MaxBlock+1))}
	if shape.Validate() != nil || r.BlockSize > objfmt.MaxBlock {
		k.complain(key+".block_size", r.BlockSize, fmt.Sprintf("must be a multiple of %v, and of %v when larger, at most %v",
			Size(objfmt.BlockUnit), Size(objfmt.CellSize), Size(objfmt.MaxBlock)), "1MiB suits large objects")
		return
	}
	if stripe := Size(r.Data) * r.BlockSize; !k.badGeometry(key) && r.ChunkSize < stripe {
		k.complain(key+".chunk_size", r.ChunkSize, fmt.Sprintf("is less than one stripe, data x block_size (%v)", stripe),
			"a chunk of many stripes wastes less: 1GiB")
	}
	if r.ChunkSize > maxChunk {
		k.complain(key+".chunk_size", r.ChunkSize, fmt.Sprintf("must be at most %v", Size(maxChunk)), "")
		return
	}
	k.bucketChunks(key, r)
}

// bucketChunks checks that the shards of a full chunk fit into the repo's buckets.
func (k *checker) bucketChunks(key string, r *Repo) {
	buckets := slices.ContainsFunc(r.Pods, func(p Pod) bool {
		return slices.ContainsFunc(p.Stores, func(s Store) bool { return s.S3 != nil })
	})
	limit := new(S3).config().MaxObject()
	if !buckets || k.badGeometry(key) || largestShard(r.Data, r.ChunkSize) <= limit {
		return
	}
	most := Size(limit) * Size(r.Data) >> 30 << 30
	for largestShard(r.Data, most) > limit {
		most -= 1 << 30
	}
	k.complain(key+".chunk_size", r.ChunkSize, fmt.Sprintf("makes shards that S3 cannot take: with data %d it must be at most %v", r.Data, most), "1GiB suits large files")
}

// largestShard is what one of data shards of a full chunk may take, of a writer
// that has memory for the smallest blocks only: those have the most checksums.
func largestShard(data int, chunk Size) int64 {
	l := objfmt.Layout{Geometry: objfmt.Geometry{Data: data, Block: objfmt.BlockUnit}, Size: int64(chunk) + objfmt.MaxTrailer}
	return objfmt.MaxShardHeader + l.Stored(l.Payload(0)) + objfmt.ShardFooterSize
}

func (k *checker) store(key string, s *Store) {
	dir := k.given(key + ".dir")
	if dir == k.given(key+".s3") {
		k.complain(key, nil, "must have either dir or s3", "")
		return
	}
	if dir {
		if k.directory(key+".dir", &s.Dir) {
			k.place(key+".dir", s.Dir)
		}
		return
	}
	if s.S3 == nil {
		return // reported by the decoder
	}
	k.require(key+".s3", "endpoint", "bucket", "credentials")
	k.s3(key+".s3", s.S3)
}

var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	envPrefix  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	regionName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

func (k *checker) s3(key string, s *S3) {
	host, ok := k.endpoint(key+".endpoint", s.Endpoint)
	if k.given(key + ".bucket") {
		_, ip := netip.ParseAddr(s.Bucket)
		if !bucketName.MatchString(s.Bucket) || strings.Contains(s.Bucket, "..") || ip == nil {
			k.complain(key+".bucket", s.Bucket, "is not a bucket name", "bucket names are 3 to 63 of a-z 0-9 . - and begin and end with a letter or digit")
			ok = false
		}
	}
	if !regionName.MatchString(s.Region) {
		k.complain(key+".region", s.Region, "is not a region", "for example us-east-1, which is the default")
	}
	k.credentials(key+".credentials", s)
	if k.given(key + ".ca_file") {
		k.directory(key+".ca_file", &s.CAFile)
	}
	if ok && s.Bucket != "" {
		k.places = append(k.places, place{key: key, path: "s3 " + host + "/" + s.Bucket})
	}
}

// credentials checks where they are said to be; what is there is read by [Open].
func (k *checker) credentials(key string, s *S3) {
	if !k.given(key) {
		return
	}
	prefix, env := strings.CutPrefix(s.Credentials, "env:")
	switch {
	case env && !envPrefix.MatchString(prefix):
		k.complain(key, s.Credentials, "is not the prefix of environment variables",
			"env:S3A reads S3A_ACCESS_KEY, S3A_SECRET_KEY and S3A_SESSION_TOKEN")
	case !env:
		k.directory(key, &s.Credentials)
	}
}

// endpoint checks a server's URL and returns scheme, host and port in one form.
func (k *checker) endpoint(key, endpoint string) (string, bool) {
	if !k.given(key) {
		return "", false
	}
	const hint = "for example https://s3.example:9000"
	// Before anything else, and without the values: they may hold secrets.
	switch {
	case strings.Contains(endpoint, "@"):
		k.complain(key, nil, "holds a user or password", "they belong into the credentials file")
		return "", false
	case strings.ContainsAny(endpoint, "?#"):
		k.complain(key, nil, "has more than a host and a port", hint)
		return "", false
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		k.complain(key, endpoint, "is not http:// or https:// and a host", hint)
	case strings.Trim(u.Path, "/") != "":
		k.complain(key, endpoint, "has more than a host and a port", hint)
	case !goodPort(u):
		k.complain(key, endpoint, "has a bad port", "ports are 1 to 65535")
	default:
		port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
		return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port), true
	}
	return "", false
}

func goodPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && n > 0
}

// place is a directory or bucket that belongs to one key alone.
type place struct {
	key  string
	path string
}

func (k *checker) place(key, path string) { k.places = append(k.places, place{key, path}) }

// overlaps reports places that are equal, and directories inside others: what
// is inside a store, a metadata directory or the mount belongs to it.
func (k *checker) overlaps() {
	// With the separator first in the order, whatever is inside a directory
	// follows it directly, and a stack of enclosing directories is enough.
	order := func(a, b place) int {
		return strings.Compare(strings.ReplaceAll(a.path, "/", "\x00"), strings.ReplaceAll(b.path, "/", "\x00"))
	}
	slices.SortStableFunc(k.places, order)
	var around []place
	for _, p := range k.places {
		for len(around) > 0 && !within(p.path, around[len(around)-1].path) {
			around = around[:len(around)-1]
		}
		if len(around) > 0 {
			k.overlap(around[len(around)-1], p)
		}
		around = append(around, p)
	}
}

// overlap reports the later of two places of which inner is in outer, or the same.
func (k *checker) overlap(outer, inner place) {
	relation := "is inside"
	if outer.path == inner.path {
		relation = "is the same as"
	}
	p, other := inner, outer
	if k.line(other.key) > k.line(p.key) {
		p, other = outer, inner
		relation = strings.Replace(relation, "is inside", "is around", 1)
	}
	k.complain(p.key, strings.TrimPrefix(p.path, "s3 "), fmt.Sprintf("%s %s on line %d (%s)", relation, other.key, k.line(other.key),
		strings.TrimPrefix(other.path, "s3 ")), "every store, metadata directory and mount needs a place of its own")
}

// within reports whether path is dir or inside it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
