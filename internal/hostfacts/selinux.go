// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/target"
)

func (r *reader) selinux(active target.Answer) SELinuxStatus {
	s := SELinuxStatus{Line: Line{
		Why: "gives every container its own label, so that one broken out of its namespaces still cannot touch another or the host",
	}}
	config, configErr := r.read("/etc/selinux/config")
	s.PolicyName = ShellVariable(config, "SELINUXTYPE")
	built := r.config.Built("CONFIG_SECURITY_SELINUX")
	const enable = "palisade host enable selinux (shows the plan; nothing is changed without --apply)"

	switch {
	case active == target.No && built == target.No:
		s.State, s.Mode = target.Absent, "disabled"
		s.MLS, s.ContainerTypes = target.No, target.No
		s.Detail = "the kernel is built without it"
		s.Enable = "boot a kernel with CONFIG_SECURITY_SELINUX=y"
		return s
	case active == target.No:
		s.State, s.Mode = target.Off, "disabled"
		s.MLS, s.ContainerTypes = target.No, target.No
		s.Detail, s.Enable = "built in, not in the list of active modules", enable
		if built == target.Unknown {
			s.State, s.Detail = target.Absent, "not in the list of active modules; whether the kernel has it could not be told"
			s.cannotTell("kernel configuration", errors.New("no kernel configuration to read"))
		}
		return s
	case active == target.Unknown && r.exists("/sys/fs/selinux/enforce") != target.Yes:
		s.cannotTell("whether SELinux is active", errors.New("neither the list of active modules nor selinuxfs can be read"))
		return s
	}

	dir, err := r.pseudo("selinuxfs", "/sys/fs/selinux", unix.SELINUX_MAGIC)
	if err != nil {
		s.cannotTell("selinuxfs", err)
		s.Detail = "active; its state cannot be read"
		return s
	}
	number := func(name string) (int, bool) {
		text, err := readFile(dir + "/" + name)
		if err == nil {
			var n int
			if _, err = fmt.Sscanf(text, "%d", &n); err == nil {
				return n, true
			}
		}
		s.cannotTell(name, err)
		return 0, false
	}
	if v, ok := number("policyvers"); ok {
		s.PolicyVersion = v
	}
	if v, ok := number("mls"); ok {
		s.MLS = target.AnswerOf(v == 1)
	}
	_, s.ProcessContext, s.FileContext = r.containerContexts()
	enforce, known := number("enforce")
	// The directory of classes is filled when a policy is loaded.
	_, loadedErr := os.Stat(dir + "/class/process")
	noPolicy := errors.Is(loadedErr, fs.ErrNotExist)
	switch {
	case !known:
		s.Detail = "active; its mode cannot be read"
	case enforce == 1:
		s.Mode, s.State = "enforcing", target.Enforcing
	default:
		s.Mode, s.State = "permissive", target.Off
		s.Enable = "setenforce 1 when 'palisade host enable selinux' has nothing left to complain about"
	}
	if noPolicy {
		s.State = target.Off
		s.Enable = enable
		s.MLS, s.ContainerTypes = target.No, target.No
		s.Detail = "active without a policy: everything is allowed"
		return s
	}
	if r.live {
		s.ContainerTypes = target.Yes
		for _, context := range []string{target.DefaultProcessContext, target.DefaultFileContext} {
			if s.MLS == target.No {
				context = strings.TrimSuffix(context, ":s0")
			}
			switch known, err := contextValid(dir, context); {
			case err != nil:
				s.cannotTell(context, err)
				if s.ContainerTypes == target.Yes {
					s.ContainerTypes = target.Unknown
				}
			case !known:
				s.ContainerTypes = target.No
			}
		}
	} else {
		s.cannotTell("container types", errNotAsked)
	}
	if s.Detail == "" {
		name := s.PolicyName
		if name == "" {
			name = "of unknown name"
			if configErr != nil {
				s.cannotTell("policy name", configErr)
			}
		}
		types := map[target.Answer]string{
			target.Yes: "knows the types of containers", target.No: "has no types for containers (engines fail or run unlabelled)",
			target.Unknown: "may or may not know the types of containers",
		}[s.ContainerTypes]
		s.Detail = fmt.Sprintf("%s; policy %s, kernel reads version %d, %s; the policy %s", s.Mode, name, s.PolicyVersion,
			map[target.Answer]string{target.Yes: "MLS", target.No: "no MLS", target.Unknown: "MLS unknown"}[s.MLS], types)
		if s.ContainerTypes == target.No {
			s.Enable = strings.TrimPrefix(s.Enable+"; install the container policy: palisade host enable selinux", "; ")
		}
	}
	return s
}

// contextValid asks the loaded policy whether a context is valid.
//
// Source: security/selinux/selinuxfs.c, sel_write_context.
func contextValid(dir, context string) (bool, error) {
	fd, err := unix.Open(dir+"/context", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	switch _, err := unix.Write(fd, append([]byte(context), 0)); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EINVAL):
		return false, nil
	default:
		return false, err
	}
}

// ShellVariable is the last value that a file of NAME=value lines gives name.
func ShellVariable(text, name string) string {
	value := ""
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			value = strings.Trim(strings.TrimSpace(v), `"'`)
		}
	}
	return value
}
