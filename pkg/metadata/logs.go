package metadata

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"marfs/pkg/mdfs"
)

// Log is a file of log/, where whoever destroys says so before it does. What was
// written is durable after the next sync of the filesystem, which is what
// [FS.Expire] does between deciding and destroying, or after Sync. Safe for
// concurrent use.
type Log struct {
	mu   sync.Mutex // guards the fields below
	file mdfs.File
	size int64 // bytes
}

// CreateLog makes a file of log/ that is not there, and the directory if this is
// the first. Nobody but the daemon's user can read it.
func (f *FS) CreateLog(ctx context.Context, name string) (*Log, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := &Log{}
	err := f.inMade(logName, func(d mdfs.Dir) (err error) {
		l.file, err = create(stepLog, d, name, 0o600)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", logName, name, err)
	}
	return l, nil
}

// Write appends p. After an error nothing of p counts as written: the next Write
// takes its place.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := writeAt(stepLog, l.file, p, l.size); err != nil {
		return 0, err
	}
	l.size += int64(len(p))
	return len(p), nil
}

// Sync makes durable what was written.
func (l *Log) Sync() error { return syncFile(stepLog, l.file) }

// Close closes the file.
func (l *Log) Close() error { return l.file.Close() }

// Logs lists the names in log/.
func (f *FS) Logs(ctx context.Context) ([]string, error) {
	names, err := f.names(logName, "")
	if err != nil {
		return nil, err
	}
	return names, ctx.Err()
}

// RemoveLog removes a file of log/; one that is not there is no error.
func (f *FS) RemoveLog(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("log %q: %w", name, syscall.EINVAL)
	}
	return f.in(logName, func(d mdfs.Dir) error { return remove(stepLog, d, name) })
}
