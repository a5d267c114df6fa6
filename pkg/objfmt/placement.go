package objfmt

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxShards bounds N+E: what Reed-Solomon over bytes can do.
const MaxShards = 256

// MaxBlock bounds the block size of a geometry, and so what a reader must hold.
const MaxBlock = 1 << 30

// checkRef refuses references that no complete write can have made.
func checkRef(r ObjectRef) error {
	if r.Object.IsZero() {
		return fmt.Errorf("%w: object id is zero", ErrFormat)
	}
	if err := CheckName("repo", r.Repo); err != nil {
		return err
	}
	if err := CheckName("pod", r.Pod); err != nil {
		return err
	}
	return r.Layout.Validate()
}

// textObject writes <object id>[.<chunk>].
func textObject(id ObjectID, chunk uint32) string {
	if chunk == 0 {
		return id.String()
	}
	return id.String() + "." + strconv.FormatUint(uint64(chunk), 10)
}

func (r *textReader) object(s string) (id ObjectID, chunk uint32) {
	name, n, dotted := strings.Cut(s, ".")
	id, err := ParseObjectID(name)
	if err != nil {
		r.fail("%v", err)
	}
	if dotted {
		chunk = r.uint32(n)
	}
	return id, chunk
}

// textLayout writes <repo>/<pod>/<data>+<parity>x<block>/<write id>/<size>.
func textLayout(l Layout) string {
	return fmt.Sprintf("%s/%s/%d+%dx%d/%s/%d", l.Repo, l.Pod, l.Data, l.Parity, l.Block, textID(l.WriteID), l.Size)
}

func (r *textReader) layout(s string) Layout {
	p := r.list(s, "/", 5, 5)
	shards := r.list(p[2], "x", 2, 2)
	n := r.list(shards[0], "+", 2, 2)
	return Layout{
		Repo:     p[0],
		Pod:      p[1],
		Geometry: Geometry{Data: int(r.uint32(n[0])), Parity: int(r.uint32(n[1])), Block: int(r.uint32(shards[1]))},
		WriteID:  r.id(p[3]),
		Size:     r.int64(p[4]),
	}
}
