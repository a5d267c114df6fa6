package objfmt

import "testing"

// TestWorkedSizes holds docs/format.md to the figures it gives.
func TestWorkedSizes(t *testing.T) {
	file := TrailerFile{File: sampleID(1), Content: sampleID(2), Path: "a/b", MTime: sampleTime, Size: 5000, Length: 5000}
	uni := &Trailer{Namespace: "projecta", Object: sampleObject, Chunks: 1, Stored: 5000, Files: []TrailerFile{file}}
	if got, want := len(mustEncode(t, uni)), 199; got != want {
		t.Errorf("a trailer of one file takes %d bytes, want %d", got, want)
	}
	second := file
	second.At = 5000
	pack := &Trailer{Namespace: "projecta", Object: sampleObject, Chunks: 1, Stored: 10000, Files: []TrailerFile{file, second}}
	if got, want := len(mustEncode(t, pack)), 199+107; got != want {
		t.Errorf("a trailer of two files takes %d bytes, want %d", got, want)
	}
	table := &ChunkTable{File: sampleID(1), Content: sampleID(2), Chunks: []Chunk{
		{Offset: 0, Length: 1 << 30, Object: sampleRef(1)},
		{Offset: 1 << 30, Length: 1, Object: sampleRef(2)},
	}}
	if got, want := len(mustEncode(t, table)), 236; got != want {
		t.Errorf("a table of two chunks takes %d bytes, want %d", got, want)
	}
	one := &MemberTable{Object: sampleRef(0), Members: sampleMembers()[:1]}
	two := &MemberTable{Object: sampleRef(0), Members: sampleMembers()}
	if got, want := len(mustEncode(t, two))-len(mustEncode(t, one)), 56; got != want {
		t.Errorf("a member takes %d bytes, want %d", got, want)
	}
}

func TestMemberTableSize(t *testing.T) {
	for _, n := range []int{1, 2, 100} {
		table := MemberTable{Object: ObjectRef{Object: ObjectID{1}}}
		for i := range n {
			table.Members = append(table.Members, Member{File: ID{1}, Content: ID{2, byte(i)}, Offset: int64(i), Length: 1})
		}
		b, err := table.Encode()
		if err != nil || int64(len(b)) != MemberTableSize(n) {
			t.Errorf("%d members: %d bytes, want %d, error %v", n, len(b), MemberTableSize(n), err)
		}
	}
}
