// SPDX-License-Identifier: Apache-2.0

// Package run is what the command line does with containers: it starts, shows and
// removes them, and probes what they can reach.
package run

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/container"
	"github.com/palisade-sec/palisade/internal/delegate"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/image"
	"github.com/palisade-sec/palisade/internal/registry/authority"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/selinux/relabel"
	"github.com/palisade-sec/palisade/svirt"
)

// Command is "palisade run".
func Command(e *answer.Env) *cobra.Command {
	var o container.Options
	var policyName string
	var probing bool
	var shielded shieldedRun
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG…]",
		Short: "Run a command in a confined container",
		Long: `Runs a command in a container that every mechanism of the host confines, and ends
with the command's exit code (128 and the signal's number when a signal killed
it), or with 125 when the container could not be started.

With neither --rootfs nor --image the container's root holds only palisade
itself, at /palisade. What is written into the root is gone when the container
ends; volumes stay.`,
		Example: `  palisade run -- /palisade version
  palisade run --rootfs ./busybox -t -- /bin/sh
  palisade run --policy strict --probe
  palisade run --policy strict --image alpine.tar -v ./data:/data:ro -- ls /data`,
		Args: func(_ *cobra.Command, args []string) error {
			if probing && len(args) > 0 {
				return answer.Fail(fmt.Errorf("--probe runs the probes, not %q", args[0])).Hint("leave out the command or --probe")
			}
			if len(args) == 0 && o.Image == "" && !probing {
				return answer.Fail(errors.New("no command to run")).Hint("palisade run [flags] -- COMMAND, for example: palisade run -- /palisade version")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			var err error
			o.Args = args
			if probing {
				if err := probeInstead(e, &o, policyName); err != nil {
					return err
				}
			}
			if err := shielded.apply(&o); err != nil {
				return err
			}
			if o.Policy, err = policy.Builtin(policyName); err != nil {
				return answer.Fail(err).Hint("the policies are %s", strings.Join(policy.BuiltinNames(), " and "))
			}
			if o.Net != container.NetNone && o.Net != container.NetHost {
				return answer.Fail(fmt.Errorf("network %q: want none or host", o.Net)).Hint("--net none gives the container a loopback device only")
			}
			if o.OnMismatch != container.OnMismatchKill && o.OnMismatch != container.OnMismatchWarn {
				return answer.Fail(fmt.Errorf("on mismatch %q: want kill or warn", o.OnMismatch)).Hint("kill ends the container before its command runs")
			}
			o.Warn = func(err error) { e.Warnf("%v", err) }
			if o.Rootfs != "" && o.Image != "" {
				return answer.Fail(errors.New("--rootfs and --image exclude each other")).Hint("give one of them")
			}
			if o.Name != "" && !state.ValidID(o.Name) {
				return answer.Fail(fmt.Errorf("name %q: a name is up to 1024 letters, digits, '_', '+', ',', '.' and '-', and neither '.' nor '..'", o.Name)).
					Hint("for example: --name web-1")
			}
			dir, err := openState()
			if err != nil {
				return err
			}
			o.Stdin, o.Stdout, o.Stderr = os.Stdin, os.Stdout, os.Stderr
			code, err := container.Run(dir, registry(dir), o)
			if err != nil {
				return explainRun(err)
			}
			return answer.ExitWith(code)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&policyName, "policy", "default", "`policy`: default or strict")
	f.BoolVar(&probing, "probe", false, "instead of a command, try what escapes are made of; exit code 1 when something is open that the policy claims to block")
	f.StringVar(&o.Rootfs, "rootfs", "", "`folder` that becomes the container's root; it is not written to")
	f.StringVar(&o.Image, "image", "", "OCI layout folder, or docker or OCI archive, to run")
	f.StringArrayVarP(&o.Volumes, "volume", "v", nil, "mount `src:dst[:ro|:Z|:z|:mount]`; Z labels src for this container, z for all; mount: src is a device or image")
	f.StringArrayVarP(&o.Env, "env", "e", nil, "`NAME=VALUE`, or NAME to pass on the caller's")
	f.StringVarP(&o.Workdir, "workdir", "w", "", "working `folder` in the container")
	f.StringVarP(&o.User, "user", "u", "", "run as `user[:group]`, names of the root or numbers")
	f.StringVar(&o.Net, "net", container.NetNone, "`network`: none or host")
	f.StringVar(&o.Name, "name", "", "`name` of the container (default: random)")
	f.StringVar(&o.Hostname, "hostname", "", "`name` of the host in the container (default: the container's)")
	f.BoolVarP(&o.TTY, "tty", "t", false, "give the command a terminal")
	f.StringVar(&o.OnMismatch, "on-mismatch", container.OnMismatchKill, "`what` to do when less is in force than was asked: kill or warn")
	shielded.register(f)
	f.StringVar(&o.Runtime, "runtime", "", "OCI `runtime` to use (default: $PALISADE_RUNTIME, runc, crun)")
	return cmd
}

// probeInstead has a container run the probes with the claims of its policy. A
// root that is not the built-in one gets this program as a read-only volume.
func probeInstead(e *answer.Env, o *container.Options, policyName string) error {
	program := "/palisade"
	if o.Rootfs != "" || o.Image != "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find palisade itself: %w", err)
		}
		program = "/.palisade/palisade"
		o.Volumes = append(o.Volumes, self+":"+program+":ro")
	}
	o.Args = []string{program, "probe", "--claims", policyName}
	if e.JSON {
		o.Args = append(o.Args, "--json")
	}
	return nil
}

// openState opens the state directory for those who may.
func openState() (*state.Dir, error) {
	if os.Geteuid() != 0 {
		return nil, answer.Fail(errors.New("this needs root")).Hint("run it with sudo")
	}
	dir, err := state.Open(state.Locate())
	if err != nil {
		return nil, answer.Fail(err).Hint("%s names another folder for the state", state.EnvDir)
	}
	return dir, nil
}

// registry is the label registry of a state directory.
func registry(dir *state.Dir) svirt.Authority { return authority.Open(dir.Path()) }

// explainRun adds what a person can do about an error.
func explainRun(err error) error {
	if code := container.ExitCode(err); code != answer.CodeFailed {
		return answer.FailWith(code, answer.Fail(err).Hint("the root of the container has no such command, or it cannot be executed there"))
	}
	switch {
	case errors.As(err, new(*effective.MismatchError)):
		return answer.Fail(err).Hint("the command was not run; 'palisade host status' tells what this host enforces, --on-mismatch warn runs it all the same")
	case errors.Is(err, bundle.ErrMissing):
		return answer.Fail(err).Hint("'palisade host status' tells what this host can enforce")
	case errors.Is(err, delegate.ErrNoRuntime):
		return answer.Fail(err).Hint("install runc or crun (apt-get install runc), or name one with --runtime")
	case errors.Is(err, state.ErrExists), errors.Is(err, state.ErrBusy):
		return answer.Fail(err).Hint("'palisade ps' shows what runs; give another --name")
	case errors.Is(err, container.ErrNoCommand):
		return answer.Fail(err).Hint("the image names none; give one behind --")
	case errors.Is(err, container.ErrVolume):
		return answer.Fail(err).Hint("for example: -v ./data:/data:ro")
	case errors.Is(err, relabel.ErrSystemPath):
		return answer.Fail(err).Hint("leave out :Z or :z, or copy what the container needs to a folder of its own")
	case errors.Is(err, image.ErrFormat):
		return answer.Fail(err).Hint("'docker save' and 'skopeo copy … oci:DIR' write what is wanted")
	case errors.As(err, new(*image.HostileError)), errors.Is(err, image.ErrTooLarge):
		return answer.Fail(err).Hint("nothing of the image was kept; do not use it")
	case errors.Is(err, syscall.ENOSPC):
		return answer.Fail(err).Hint("nothing was left behind; %s names a folder with more room", state.EnvDir)
	case errors.Is(err, svirt.ErrExhausted):
		return answer.Fail(err).Hint("'palisade gc' frees the labels of containers that are gone")
	}
	return answer.Fail(err).Hint("nothing was left behind")
}
