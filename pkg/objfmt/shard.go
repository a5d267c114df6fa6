package objfmt

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A shard's file is a header, cells, and a footer. Header and footer say the same
// of the write, so that a file of two writes' halves is found out; the object's
// size is only in the footer, because objects are streamed and it is not known before.

const (
	shardVersion = 1

	shardHeaderFixed = 48 // before key and pod
	maxShardKey      = 1024
	maxShardPod      = 255

	// ShardFooterSize is the length of a footer.
	ShardFooterSize = 56
	// MaxShardHeader is the longest a header can be.
	MaxShardHeader = (shardHeaderFixed+maxShardKey+maxShardPod+7)&^7 + SumSize
)

var (
	shardHeaderMagic = [8]byte([]byte("MarFSshd"))
	shardFooterMagic = [8]byte([]byte("MarFSend"))
)

// shardHeaderSize is a multiple of 8.
func shardHeaderSize(key, pod int) int { return (shardHeaderFixed+key+pod+7)&^7 + SumSize }

// ShardHeader begins a shard's file: what shard of which write of which object it is.
type ShardHeader struct {
	Key     string
	Pod     string
	WriteID ID
	Geometry
	Shard int
}

// Header returns the header of the object's shard.
func (l Layout) Header(key string, shard int) ShardHeader {
	return ShardHeader{Key: key, Pod: l.Pod, WriteID: l.WriteID, Geometry: l.Geometry, Shard: shard}
}

// Append appends the encoded header to b.
func (h ShardHeader) Append(b []byte) ([]byte, error) {
	if err := h.validate(); err != nil {
		return nil, err
	}
	start, size := len(b), shardHeaderSize(len(h.Key), len(h.Pod))
	b = append(b, shardHeaderMagic[:]...)
	for _, v := range []int{shardVersion, size, h.Shard, h.Data, h.Parity, len(h.Key), len(h.Pod), 0} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(h.Block))
	b = binary.BigEndian.AppendUint32(b, uint32(h.Cell()))
	b = append(b, h.WriteID[:]...)
	b = append(b, h.Key...)
	b = append(b, h.Pod...)
	b = append(b, make([]byte, start+size-SumSize-len(b))...)
	return binary.BigEndian.AppendUint64(b, Checksum(b[start:])), nil
}

func (h ShardHeader) validate() error {
	if err := h.Geometry.Validate(); err != nil {
		return err
	}
	switch {
	case h.Shard < 0 || h.Shard >= h.Shards():
		return fmt.Errorf("%w: shard %d of %d", ErrFormat, h.Shard, h.Shards())
	case h.Key == "" || len(h.Key) > maxShardKey:
		return fmt.Errorf("%w: key of %d bytes", ErrFormat, len(h.Key))
	case len(h.Pod) > maxShardPod:
		return fmt.Errorf("%w: pod name of %d bytes", ErrFormat, len(h.Pod))
	case h.WriteID.IsZero():
		return fmt.Errorf("%w: shard without a write id", ErrFormat)
	}
	return nil
}

// ParseShardHeader reads the header that b, the beginning of a shard's file,
// begins with. MaxShardHeader bytes are always enough.
func ParseShardHeader(b []byte) (ShardHeader, error) {
	const what = "shard header"
	if err := checkMagic(what, b, shardHeaderFixed, shardHeaderMagic); err != nil {
		return ShardHeader{}, err
	}
	u16 := func(i int) int { return int(binary.BigEndian.Uint16(b[8+2*i:])) }
	size, key, pod := u16(1), u16(5), u16(6)
	if size != shardHeaderSize(key, pod) || size > len(b) {
		return ShardHeader{}, fmt.Errorf("%w: %s of %d bytes, for key %d and pod %d, in %d", ErrFormat, what, size, key, pod, len(b))
	}
	b = b[:size]
	if err := checkSum(what, b); err != nil {
		return ShardHeader{}, err
	}
	h := ShardHeader{
		Key:      string(b[shardHeaderFixed:][:key]),
		Pod:      string(b[shardHeaderFixed+key:][:pod]),
		WriteID:  ID(b[32:48]),
		Geometry: Geometry{Data: u16(3), Parity: u16(4), Block: int(binary.BigEndian.Uint32(b[24:]))},
		Shard:    u16(2),
	}
	return h, h.check(b)
}

// check refuses what Append would not have written.
func (h ShardHeader) check(b []byte) error {
	again, err := h.Append(nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("%w: shard header: cell size, or bytes that must be zero", ErrFormat)
	}
	return nil
}

// ShardFooter ends a shard's file.
type ShardFooter struct {
	WriteID ID
	Shard   int
	Size    int64 // of the object
	Payload int64 // bytes of data or parity in this shard
}

// Footer returns the footer of the object's shard.
func (l Layout) Footer(shard int) ShardFooter {
	return ShardFooter{WriteID: l.WriteID, Shard: shard, Size: l.Size, Payload: l.Payload(shard)}
}

// Append appends the encoded footer to b.
func (f ShardFooter) Append(b []byte) []byte {
	start := len(b)
	b = append(b, shardFooterMagic[:]...)
	b = binary.BigEndian.AppendUint16(b, shardVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(f.Shard))
	b = binary.BigEndian.AppendUint32(b, 0)
	b = append(b, f.WriteID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(f.Size))
	b = binary.BigEndian.AppendUint64(b, uint64(f.Payload))
	return binary.BigEndian.AppendUint64(b, Checksum(b[start:]))
}

// ParseShardFooter reads the footer that b, the end of a shard's file, ends with.
func ParseShardFooter(b []byte) (ShardFooter, error) {
	const what = "shard footer"
	b = b[max(0, len(b)-ShardFooterSize):]
	if err := checkMagic(what, b, ShardFooterSize, shardFooterMagic); err != nil {
		return ShardFooter{}, err
	}
	if err := checkSum(what, b); err != nil {
		return ShardFooter{}, err
	}
	f := ShardFooter{
		WriteID: ID(b[16:32]),
		Shard:   int(binary.BigEndian.Uint16(b[10:])),
		Size:    int64(binary.BigEndian.Uint64(b[32:])),
		Payload: int64(binary.BigEndian.Uint64(b[40:])),
	}
	if f.Size < 0 || f.Size > MaxObject || f.Payload < 0 || f.Payload > f.Size || !bytes.Equal(f.Append(nil), b) {
		return ShardFooter{}, fmt.Errorf("%w: %s: object of %d bytes, %d of them here", ErrFormat, what, f.Size, f.Payload)
	}
	return f, nil
}

// checkMagic checks length, magic and version, in this order.
func checkMagic(what string, b []byte, length int, magic [8]byte) error {
	if len(b) < length {
		return fmt.Errorf("%w: %s: %d bytes, want %d", ErrFormat, what, len(b), length)
	}
	if !bytes.Equal(b[:8], magic[:]) {
		return fmt.Errorf("%w: %s: begins with %q, want %q", ErrFormat, what, b[:8], magic[:])
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != shardVersion {
		return fmt.Errorf("%w: %s: %d, want %d", ErrVersion, what, v, shardVersion)
	}
	return nil
}

func checkSum(what string, b []byte) error {
	at := len(b) - SumSize
	if have, want := Checksum(b[:at]), binary.BigEndian.Uint64(b[at:]); have != want {
		return fmt.Errorf("%w: %s: %016x, recorded %016x", ErrChecksum, what, have, want)
	}
	return nil
}
