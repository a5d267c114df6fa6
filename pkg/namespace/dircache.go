package namespace

import (
	"container/list"
	"sync"
	"time"

	"marfs/pkg/mdfs"
)

// dirCache keeps descriptors of recently used directories for a moment, so that
// an operation deep in a tree costs one open, not one a component. An entry is
// as stale as a kernel's directory entry with the same timeout; callers that
// know the inode number check it.
type dirCache struct {
	max int
	ttl time.Duration

	mu   sync.Mutex // guards all below, and the counts of the entries
	byID map[dirKey]*list.Element
	lru  *list.List // of *cachedDir, newest first
}

// dirKey is a name in a directory of a namespace.
type dirKey struct {
	space  *space
	parent uint64 // inode number
	name   string
}

// cachedDir is open while it is in the cache or in use.
type cachedDir struct {
	key   dirKey
	dir   mdfs.Dir
	ino   uint64
	until time.Time
	users int
	gone  bool // out of the cache: the last user closes
}

func newDirCache(max int, ttl time.Duration) *dirCache {
	return &dirCache{max: max, ttl: ttl, byID: map[dirKey]*list.Element{}, lru: list.New()}
}

// open returns the directory of key, opening it when it is not cached. It is to
// be released.
func (c *dirCache) open(key dirKey, open func() (mdfs.Dir, error)) (*cachedDir, error) {
	if d := c.get(key); d != nil {
		return d, nil
	}
	md, err := open()
	if err != nil {
		return nil, err
	}
	st, err := md.Stat()
	if err != nil {
		md.Close()
		return nil, err
	}
	d := &cachedDir{key: key, dir: md, ino: st.Ino, until: time.Now().Add(c.ttl), users: 1}
	c.put(d)
	return d, nil
}

func (c *dirCache) get(key dirKey) *cachedDir {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byID[key]
	if e == nil {
		return nil
	}
	d := e.Value.(*cachedDir)
	if time.Now().After(d.until) {
		c.remove(e)
		return nil
	}
	c.lru.MoveToFront(e)
	d.users++
	return d
}

func (c *dirCache) put(d *cachedDir) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[d.key]; e != nil {
		c.remove(e)
	}
	c.byID[d.key] = c.lru.PushFront(d)
	for c.lru.Len() > c.max {
		c.remove(c.lru.Back())
	}
}

// remove takes an entry out; c.mu is held.
func (c *dirCache) remove(e *list.Element) {
	d := c.lru.Remove(e).(*cachedDir)
	delete(c.byID, d.key)
	d.gone = true
	if d.users == 0 {
		d.dir.Close()
	}
}

func (c *dirCache) release(d *cachedDir) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.users--
	if d.gone && d.users == 0 {
		d.dir.Close()
	}
}

func (c *dirCache) drop(key dirKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[key]; e != nil {
		c.remove(e)
	}
}

func (c *dirCache) purge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.lru.Len() > 0 {
		c.remove(c.lru.Back())
	}
}
