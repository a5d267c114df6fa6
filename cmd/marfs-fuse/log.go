package main

import (
	"io"
	"log/syslog"
	"os"
)

// openLog is where log lines go: the file, else the foreground's stderr, else
// syslog. A daemon on a machine without syslog logs only while it starts.
func (c *command) openLog() (io.WriteCloser, error) {
	switch {
	case c.logFile != "":
		return os.OpenFile(c.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	case !isChild():
		return keepOpen{os.Stderr}, nil
	}
	w, err := syslog.New(syslog.LOG_INFO|syslog.LOG_DAEMON, "marfs-fuse")
	if err != nil {
		return keepOpen{os.Stderr}, nil
	}
	return w, nil
}

// keepOpen is not closed with the log.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }
