package main

import (
	"fmt"
	"io"
	"log/syslog"
	"os"
	"sync"

	"marfs/internal/advice"
)

// logTarget is where log lines go.
type logTarget interface {
	io.WriteCloser
	reopen() error // after its file was moved away
}

// openLog is where log lines go: the file, else the foreground's stderr, else
// syslog. A daemon on a machine without syslog logs only while it starts, and says
// so then.
func (c *command) openLog() (logTarget, error) {
	switch {
	case c.logFile != "":
		f, err := openLogFile(c.logFile)
		if err != nil {
			return nil, advised{err, "make its directory, or name another file with --log-file"}
		}
		return f, nil
	case !isChild():
		return terminal{os.Stderr}, nil
	}
	w, err := syslog.New(syslog.LOG_INFO|syslog.LOG_DAEMON, "marfs-fuse")
	if err != nil {
		fmt.Fprintf(os.Stderr, "marfs-fuse: warning: in the background nothing will be logged: there is no syslog: %v\n", err)
		advice.PrintHint(os.Stderr, "name a file with --log-file FILE")
		return terminal{os.Stderr}, nil
	}
	return sysLog{w}, nil
}

// terminal is not closed with the log.
type terminal struct{ io.Writer }

func (terminal) Close() error  { return nil }
func (terminal) reopen() error { return nil }

// sysLog connects again by itself.
type sysLog struct{ *syslog.Writer }

func (sysLog) reopen() error { return nil }

// logFile is the file of --log-file.
type logFile struct {
	path string

	mu sync.Mutex // guards f
	f  *os.File
}

func openLogFile(path string) (*logFile, error) {
	l := &logFile{path: path}
	return l, l.reopen()
}

// reopen goes on with the file that now has the name. Where that fails, the one
// that is open goes on.
func (l *logFile) reopen() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	l.mu.Lock()
	old := l.f
	l.f = f
	l.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.Close()
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(p)
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}
