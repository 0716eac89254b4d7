// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// terminal gives a runtime that wants a terminal its standard streams: ours if we
// have a terminal, else the end of a pair that is copied to and from our streams.
// finish is to be called once the runtime has ended.
func terminal(o Options) (streams []*os.File, finish func(), err error) {
	if isTerminal(o.Stdin) && isTerminal(o.Stdout) {
		return []*os.File{o.Stdin, o.Stdout, o.Stderr}, func() {}, nil
	}
	master, name, err := console.NewPty()
	if err != nil {
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		// Raw from the start: what is typed before the runtime sets its own mode would
		// be echoed, and an end of file turned into a NUL.
		err = makeRaw(slave)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make a terminal: %w", errors.Join(err, master.Close()))
	}
	out := make(chan struct{})
	go func() {
		defer close(out)
		// It ends with EIO when the last end of the other side is closed.
		_, _ = io.Copy(o.Stdout, master)
	}()
	go func() {
		if o.Stdin != nil {
			_, _ = io.Copy(master, o.Stdin)
		}
		// As a person would say that there is no more: Ctrl-D.
		_, _ = master.Write([]byte{4})
	}()
	return []*os.File{slave, slave, slave}, func() {
		slave.Close()
		<-out
		master.Close()
	}, nil
}

func makeRaw(f *os.File) error {
	c, err := console.ConsoleFromFile(f)
	if err != nil {
		return err
	}
	return c.SetRaw()
}
