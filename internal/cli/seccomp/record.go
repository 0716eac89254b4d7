// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/record"
)

func newRecordCommand(e *answer.Env) *cobra.Command {
	var o recordOptions
	cmd := &cobra.Command{
		Use:   "record [flags] -- CMD [ARG…]",
		Short: "Record the calls of a command or container, as a profile with weights",
		Long: `Counts every system call of a command and its children, or of a running container, in
the kernel, with raw tracepoints; nothing is stopped or traced. The answer is a profile
that allows what was seen, how often each call was made (what "compile --weights"
takes), and which calls failed with ENOSYS anyway and were left out.

A recording shows what one run did. Paths that it did not take, reloads and error
handling above all, are not in it.

Needs root (or CAP_BPF and CAP_PERFMON) and Linux 5.7. With a command, its exit code is
passed on.`,
		Example: "  palisade seccomp record -o app.json --weights app-weights.json -- /usr/sbin/nginx -t\n  palisade seccomp record --container web --duration 60s --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if (o.container == "") == (len(args) == 0) {
				return answer.Fail(errors.New("want either a command behind -- or --container")).Hint("palisade seccomp record -- CMD")
			}
			return recordRun(e, cmd.Context(), &o, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.container, "container", "", "a process ID, or a container's name or ID in Docker, Podman or runc")
	f.DurationVar(&o.duration, "duration", 0, "stop after this time (default: when the command ends, or at an interrupt)")
	f.StringVarP(&o.output, "output", "o", "", "write the profile to this file")
	f.StringVar(&o.weights, "weights", "", "write the weights to this file")
	f.BoolVar(&o.arguments, "arguments", false, "allow socket, personality and prctl only for the arguments that were seen")
	return cmd
}

type recordOptions struct {
	container, output, weights string
	duration                   time.Duration
	arguments                  bool
}

func recordRun(e *answer.Env, ctx context.Context, o *recordOptions, args []string) error {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	var r *record.Recorder
	var ended error
	if o.container != "" {
		pid, err := containerPID(ctx, o.container)
		if err != nil {
			return err
		}
		scope, err := scopeOf(pid)
		if err != nil {
			return err
		}
		if r, err = record.Start(scope); err != nil {
			return recordError(err)
		}
		defer r.Close()
		gone, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return fmt.Errorf("watch process %d: %w", pid, err)
		}
		defer unix.Close(gone)
		fmt.Fprintf(e.Stderr, "recording the container of process %d; interrupt to stop\n", pid)
		for ctx.Err() == nil {
			fds := []unix.PollFd{{Fd: int32(gone), Events: unix.POLLIN}}
			if n, _ := unix.Poll(fds, 100); n > 0 {
				break
			}
		}
	} else {
		var err error
		if r, ended, err = recordCommand(e, ctx, args); err != nil {
			return err
		}
		defer r.Close()
	}
	rec, err := r.Read()
	if err != nil {
		return err
	}
	if err := writeRecording(e, rec, o); err != nil {
		return err
	}
	var exit *exec.ExitError
	if errors.As(ended, &exit) {
		code := exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		return answer.ExitWith(code)
	}
	return ended
}

func recordError(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return answer.Fail(fmt.Errorf("start recording: %w", err)).Hint("this needs root, or CAP_BPF and CAP_PERFMON")
	}
	return fmt.Errorf("start recording: %w", err)
}

// recordCommand runs a command in a control group of its own, or where there is
// none to be had in a PID namespace of its own, and records it.
func recordCommand(e *answer.Env, ctx context.Context, args []string) (*record.Recorder, error, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.Stdin, e.Stderr, e.Stderr
	if !e.JSON && e.Stdout != nil {
		cmd.Stdout = os.Stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	group, err := newCgroup()
	if err != nil {
		return nil, nil, answer.Fail(fmt.Errorf("make a control group to record in: %w", err)).Hint("mount the version 2 hierarchy: mount -t cgroup2 none /sys/fs/cgroup/unified; or record a container with --container")
	}
	defer os.Remove(group)
	dir, err := os.Open(group)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	r, err := record.Start(record.Scope{Cgroup: group})
	if err != nil {
		return nil, nil, recordError(err)
	}
	if err := cmd.Start(); err != nil {
		r.Close()
		return nil, nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	ended := cmd.Wait()
	if ctx.Err() != nil {
		ended = nil
	}
	return r, ended, nil
}

// newCgroup makes an empty group in the version 2 hierarchy.
func newCgroup() (string, error) {
	root, err := cgroupRoot()
	if err != nil {
		return "", err
	}
	if root != "" {
		dir := filepath.Join(root, fmt.Sprintf("palisade-record-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
		return dir, nil
	}
	return "", errors.New("no cgroup2 hierarchy is mounted")
}

// scopeOf tells the calls of a container apart: by its PID namespace, or where it
// shares the host's, by its control group.
func scopeOf(pid int) (record.Scope, error) {
	file := fmt.Sprintf("/proc/%d/ns/pid", pid)
	theirs, err := os.Readlink(file)
	if err != nil {
		return record.Scope{}, err
	}
	if ours, err := os.Readlink("/proc/self/ns/pid"); err != nil || ours != theirs {
		return record.Scope{PIDNamespace: file}, err
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return record.Scope{}, err
	}
	root, err := cgroupRoot()
	if err != nil {
		return record.Scope{}, err
	}
	for _, line := range strings.Split(string(groups), "\n") {
		if path, ok := strings.CutPrefix(line, "0::/"); ok && path != "" && root != "" {
			return record.Scope{Cgroup: filepath.Join(root, path)}, nil
		}
	}
	return record.Scope{}, answer.Fail(fmt.Errorf("process %d shares this shell's PID namespace and has no control group of its own: its calls cannot be told apart", pid)).Hint("record the command itself: palisade seccomp record -- CMD")
}

// cgroupRoot is where the version 2 hierarchy is mounted; empty for nowhere.
func cgroupRoot() (string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil || len(mounts) == 0 {
		return "", err
	}
	return mounts[0].Mountpoint, nil
}

// containerPID finds the first process of a container.
func containerPID(ctx context.Context, name string) (int, error) {
	if pid, err := strconv.Atoi(name); err == nil {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			return 0, fmt.Errorf("there is no process %d", pid)
		}
		return pid, nil
	}
	if strings.HasPrefix(name, "-") {
		return 0, fmt.Errorf("container %q: not a name", name)
	}
	for _, tool := range [][]string{
		{"docker", "inspect", "-f", "{{.State.Pid}}", name},
		{"podman", "inspect", "-f", "{{.State.Pid}}", name},
		{"runc", "state", name},
		{"crun", "state", name},
	} {
		out, err := exec.CommandContext(ctx, tool[0], tool[1:]...).Output()
		if err != nil {
			continue
		}
		var state struct {
			PID int `json:"pid"`
		}
		if json.Unmarshal(out, &state) != nil {
			state.PID, _ = strconv.Atoi(strings.TrimSpace(string(out)))
		}
		if state.PID > 0 {
			return state.PID, nil
		}
	}
	return 0, answer.Fail(fmt.Errorf("no running container %q", name)).Hint("give the process ID of its first process")
}

func writeRecording(e *answer.Env, rec *seccomp.Recording, o *recordOptions) error {
	profile := rec.Profile(o.arguments)
	weights := map[string]any{"weights": rec.Weights()}
	write := func(name string, v any) error {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		return answer.WriteFile(name, append(b, '\n'))
	}
	if o.output != "" {
		if err := write(o.output, profile); err != nil {
			return err
		}
	}
	if o.weights != "" {
		if err := write(o.weights, weights); err != nil {
			return err
		}
	}
	never := rec.NeverWorked()
	if rec.Lost > 0 {
		e.Warnf("%d calls were not counted: there were too many different ones", rec.Lost)
	}
	if e.JSON {
		if never == nil {
			never = []string{}
		}
		return e.PrintJSON(map[string]any{"profile": profile, "weights": rec.Weights(), "calls": rec.Calls, "enosys": never, "lost": rec.Lost})
	}
	if o.output != "" {
		var denied []string
		for _, c := range rec.Calls {
			if c.Denied > 0 && !slices.Contains(denied, c.Name) {
				denied = append(denied, c.Name)
			}
		}
		names := 0
		for _, r := range profile.Syscalls {
			names += len(r.Names)
		}
		fmt.Fprintf(e.Stderr, "%s: %d calls allowed", o.output, names)
		if len(never) > 0 {
			fmt.Fprintf(e.Stderr, "; left out, because they only failed with ENOSYS: %s", strings.Join(never, " "))
		}
		if len(denied) > 0 {
			fmt.Fprintf(e.Stderr, "; answered by a filter during the recording: %s", strings.Join(denied, " "))
		}
		fmt.Fprintln(e.Stderr)
		return nil
	}
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "COUNT\tARCH\tCALL\tARGUMENT\tDENIED\tENOSYS")
	for _, c := range rec.Calls {
		name, arg := c.Name, ""
		if name == "" {
			name = strconv.Itoa(int(int32(c.Nr)))
		}
		if c.Arg >= 0 {
			arg = fmt.Sprintf("a%d = %#x", c.Arg, c.Value)
		}
		fmt.Fprintf(w, "%d\t%v\t%s\t%s\t%d\t%d\n", c.Count, c.Arch, name, arg, c.Denied, c.NoSys)
	}
	return w.Flush()
}
