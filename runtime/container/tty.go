// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// terminal gives a runtime that wants a terminal one: ours if we have one, else
// a pair that is copied to and from our standard streams. The function it
// returns is to be called once the runtime has ended.
func terminal(cmd *exec.Cmd, o Options) (finish func(), err error) {
	if isTerminal(o.Stdin) && isTerminal(o.Stdout) {
		return func() {}, nil
	}
	master, slave, err := openPTY()
	if err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
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
	return func() {
		slave.Close()
		<-out
		master.Close()
	}, nil
}

func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err == nil {
		// Raw from the start: what is typed before the runtime sets its own mode
		// would be echoed, and an end of file turned into a NUL.
		err = makeRaw(slave)
	}
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}

// makeRaw switches off whatever a terminal does to what passes through it.
//
// Source: termios(3), cfmakeraw.
func makeRaw(f *os.File) error {
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	return unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}
