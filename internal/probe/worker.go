// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// The roles in which this program starts itself.
const (
	roleWorker = "worker" // runs the probes that it is told
	roleVictim = "victim" // is there to be touched
	roleExit   = "exit"   // has succeeded by being started
)

// serveArgs are the arguments after which the role follows: the program that
// runs probes must call [Serve] when it is started with them.
var serveArgs = []string{"probe", "serve"}

// reexec is this program in another role. Its file may be out of reach by name,
// so it is found through /proc.
func reexec(role string, more ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", slices.Concat(serveArgs, []string{role}, more)...)
	// Programs that go by the name they were called with keep it.
	cmd.Args[0] = os.Args[0]
	cmd.Env = []string{"GODEBUG=", "GOMAXPROCS=2"}
	return cmd
}

type request struct {
	Name      string   `json:"name"`
	Sibling   int      `json:"sibling"`
	Inherited []string `json:"inherited"`
}

type answer struct {
	Outcome Outcome `json:"outcome"`
	Errno   string  `json:"errno"`
	Layer   Layer   `json:"layer"`
	Note    string  `json:"note"`
}

// Serve is what a process does that was started with serveArgs and a role,
// and returns its exit code.
func Serve(args []string, stdin io.Reader, stdout io.Writer) int {
	if len(args) != 1 {
		return 125
	}
	switch args[0] {
	case roleExit:
		return 0
	case roleVictim:
		// Until the one who started it ends or lets go.
		_, _ = io.Copy(io.Discard, stdin)
		return 0
	case roleWorker:
		// Letting go of a terminal hangs up on the session that has it.
		signal.Ignore(unix.SIGHUP)
		if err := work(stdin, stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 125
		}
		return 0
	}
	return 125
}

func work(stdin io.Reader, stdout io.Writer) error {
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, 1<<20)
	w := survey()
	for lines.Scan() {
		var q request
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		p, ok := byName(q.Name)
		if !ok {
			return fmt.Errorf("no probe %q", q.Name)
		}
		w.sibling, w.inherited = q.Sibling, q.Inherited
		a := p.try(w)
		text, err := json.Marshal(answer{a.outcome, errnoName(a.errno), a.layer, a.note})
		if err != nil {
			return err
		}
		if _, err := stdout.Write(append(text, '\n')); err != nil {
			return err
		}
		kept = nil
	}
	return lines.Err()
}

func errnoName(e unix.Errno) string {
	if e == 0 {
		return ""
	}
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return strconv.Itoa(int(e))
}

// inherited are the files and directories beyond the three standard streams
// that this process was started with: what it opened itself is closed on exec.
func inherited() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR, unix.S_IFREG, unix.S_IFBLK, unix.S_IFCHR:
			target, _ := os.Readlink("/proc/self/fd/" + e.Name())
			list = append(list, e.Name()+" "+target)
		}
	}
	return list
}
