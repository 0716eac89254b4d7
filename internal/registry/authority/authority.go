// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package authority finds who gives out the labels of a host: the daemon where
// one runs, or the registry's file where none does. A daemon may start or stop
// at any time; what is under way is then asked again on the other way.
package authority

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/atomicfile"
	"github.com/palisade-sec/palisade/internal/registry/bolt"
	"github.com/palisade-sec/palisade/internal/registry/socket"
	"github.com/palisade-sec/palisade/svirt"
)

// Names in a state directory.
const (
	registryName = "labels.db"
	addressName  = "daemon.address"
	// SocketName is the daemon's socket unless it was told another.
	SocketName = "daemon.sock"
)

// Registry is the path of the registry's file in a state directory.
func Registry(state string) string { return filepath.Join(state, registryName) }

// Announce writes down where the daemon of a state directory is to be asked;
// withdraw takes that back.
func Announce(state, socket string) (withdraw func() error, err error) {
	path, err := filepath.Abs(socket)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(state, addressName)
	if err := (atomicfile.File{Mode: 0o644}).Write(file, []byte(path+"\n")); err != nil {
		return nil, err
	}
	return func() error { return os.Remove(file) }, nil
}

// Open returns the authority of a state directory. It holds nothing open between
// requests and is safe for concurrent use.
func Open(state string) svirt.Authority { return &local{state: state} }

type local struct{ state string }

const (
	// patience bounds the search for an authority that answers.
	patience = 30 * time.Second
	// lockWait is how long the file is waited for before the daemon is looked for
	// again: it is the daemon that keeps the file.
	lockWait = time.Second
)

// do runs fn with whoever answers.
func (l *local) do(fn func(svirt.Authority) error) error {
	deadline := time.Now().Add(patience)
	for {
		err := l.once(fn)
		if err == nil || !again(err) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("label registry in %s: no answer: %w", l.state, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// again tells whether the authority went away or another took over.
func again(err error) bool {
	for _, e := range []error{bolt.ErrLocked, os.ErrNotExist, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE, io.ErrUnexpectedEOF} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (l *local) once(fn func(svirt.Authority) error) error {
	address, err := os.ReadFile(filepath.Join(l.state, addressName))
	if err == nil {
		c, err := socket.Dial(string(trimNewline(address)))
		switch {
		case err == nil:
			defer c.Close()
			return fn(c)
		case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
			// A daemon that was killed left its address behind.
		default:
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(l.state); err != nil {
		// Not wrapped: a folder that is not there is no reason to try again.
		return errors.New("label registry: " + err.Error())
	}
	return fn(&svirt.Registry{Store: bolt.Open(Registry(l.state)).WithTimeout(lockWait)})
}

func trimNewline(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		return b[:n-1]
	}
	return b
}

func (l *local) Reserve(c svirt.Claim) (rec svirt.Record, err error) {
	err = l.do(func(a svirt.Authority) error {
		rec, err = a.Reserve(c)
		return err
	})
	return rec, err
}

func (l *local) Bind(id string) error {
	return l.do(func(a svirt.Authority) error { return a.Bind(id) })
}

func (l *local) Drain(id string) error {
	return l.do(func(a svirt.Authority) error { return a.Drain(id) })
}

func (l *local) Release(id string) error {
	return l.do(func(a svirt.Authority) error { return a.Release(id) })
}

func (l *local) List() (list []svirt.Record, err error) {
	err = l.do(func(a svirt.Authority) error {
		list, err = a.List()
		return err
	})
	return list, err
}

func (l *local) Check(observed []svirt.Observation) (v []svirt.Violation, err error) {
	err = l.do(func(a svirt.Authority) error {
		v, err = a.Check(observed)
		return err
	})
	return v, err
}

func (l *local) Reconcile(observed []svirt.Observation) (rep svirt.Report, err error) {
	err = l.do(func(a svirt.Authority) error {
		rep, err = a.Reconcile(observed)
		return err
	})
	return rep, err
}

func (l *local) Expire() (n int, err error) {
	err = l.do(func(a svirt.Authority) error {
		n, err = a.Expire()
		return err
	})
	return n, err
}
