// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/hold"
	"github.com/palisade-sec/palisade/internal/state"
)

// Maker is a process that becomes the program that makes a container. It is no child
// of this process.
type Maker struct {
	PID int
	// Ready is called once the maker, all its threads and all that they will start
	// are traced. Until then the maker must not have begun.
	Ready func() error
	// Timeout bounds the time until the workload is executed.
	Timeout time.Duration
	// Cancel gives the start up when it is closed before the workload is executed.
	Cancel <-chan struct{}
}

// ErrNotReached says that all that was traced ended before the workload was
// executed.
var ErrNotReached = errors.New("the container ended before its workload was executed")

// Follow holds a container that a maker makes, with a PID namespace of its own,
// verifies it, and lets it go. It returns the workload's process. With an error the
// workload has not run, and the maker and all that it has started were killed. The
// same goes when this process is killed before Follow returns.
func (h *Host) Follow(c *state.Container, m Maker) (pid int, err error) {
	asked, err := c.Planned()
	if err != nil {
		return 0, err
	}
	inside, err := insidePID()
	if err != nil {
		return 0, err
	}
	held := hold.New(hold.Expect{Step: c.Handed, Config: c.HandedConfig, Inside: inside, Timeout: m.Timeout, Cancel: m.Cancel})
	defer held.Close()
	fail := func(err error) (int, error) {
		held.Kill()
		return 0, err
	}
	if err := held.SeizeTree(m.PID); err != nil {
		return fail(err)
	}
	if err := m.Ready(); err != nil {
		return fail(err)
	}
	res, err := held.Wait()
	switch {
	case err != nil:
		return 0, err
	case res.PID == 0:
		return fail(ErrNotReached)
	}
	if err := h.verify(res.PID, asked, !c.Handed.IsZero()); err != nil {
		return fail(err)
	}
	this := Container{Container: c, host: h}
	if err := this.verified(res.PID); err != nil {
		return fail(err)
	}
	held.Release()
	return res.PID, nil
}

// insidePID reports whether a process is in another PID namespace than this one. One
// of which that cannot be read counts as such.
func insidePID() (func(pid int) bool, error) {
	ours, err := namespace("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	return func(pid int) bool {
		theirs, err := namespace(procFile(pid, "ns/pid"))
		return err != nil || theirs != ours
	}, nil
}

func namespace(path string) (hold.Identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return hold.Identity{}, fmt.Errorf("namespace: %w", &os.PathError{Op: "stat", Path: path, Err: err})
	}
	return hold.Identity{Dev: st.Dev, Ino: st.Ino}, nil
}
