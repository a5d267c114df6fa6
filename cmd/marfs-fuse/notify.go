package main

import (
	"net"
	"os"
)

// notifySystemd tells systemd, when it started us with Type=notify, how we are:
// the protocol of sd_notify(3), one datagram.
func notifySystemd(state string) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", socket) // a leading @ is an abstract address, as in Go
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
