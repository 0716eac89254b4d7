// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/internal/integrate"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/selinux"
	"github.com/palisade-sec/palisade/svirt/libvirt"
	"github.com/palisade-sec/palisade/target"
)

// domainOptions say how the definition of one domain is edited.
type domainOptions struct{ policy, level string }

func (d domainOptions) given() bool { return d.policy != "" || d.level != "" }

// integrateDomain prints the definition of a domain as libvirt is to have it.
func integrateDomain(e *answer.Env, engine, file string, o integrate.Options, d domainOptions) error {
	if engine != "libvirt" {
		return answer.Fail(fmt.Errorf("%s: %s has no definitions of single containers", file, engine)).Hint("only libvirt has")
	}
	if !filepath.IsAbs(o.Wrapper) {
		return fmt.Errorf("wrapper %q: want an absolute path", o.Wrapper)
	}
	text, err := readDefinition(e, file)
	if err != nil {
		return err
	}
	dom, err := libvirt.Parse(text)
	if err != nil {
		return answer.Fail(fmt.Errorf("%s: %w", file, err)).Hint("'virsh -c lxc:/// dumpxml --inactive DOMAIN' prints a definition")
	}
	if dom.Driver != "lxc" {
		return answer.Fail(fmt.Errorf("%s: domain %s is of the %q driver", file, dom.Name, dom.Driver)).Hint("%s is for containers: <domain type='lxc'>", integrate.EmulatorName)
	}
	edit := libvirt.Edit{Emulator: o.Wrapper}
	if d.policy != "" {
		p, err := policy.Builtin(d.policy)
		if err != nil {
			return err
		}
		edit.Policy = p.Name
	}
	if d.level != "" {
		level, err := selinux.ParseLevel(d.level)
		if err == nil && level.Categories.IsEmpty() {
			err = errors.New("it has no categories")
		}
		if err != nil {
			return answer.Fail(fmt.Errorf("level %q: %w", d.level, err)).Hint("'palisade label reserve --id %s' gives one that is free", dom.ID())
		}
		process := hostfacts.ForLaunch().SELinux.ProcessContext
		if process == "" {
			process = target.DefaultProcessContext // for a host where SELinux is on
		}
		ctx, err := selinux.ParseContext(process)
		if err != nil {
			return err
		}
		edit.Label = &libvirt.Seclabel{Type: "static", Model: "selinux", Label: ctx.WithLevel(level).String()}
	}
	after, err := edit.Apply(text)
	if err != nil {
		return answer.Fail(fmt.Errorf("%s: %w", file, err)).Hint("nothing was changed")
	}
	if root := dom.Root(); root == nil || root.Type == "mount" && root.Source == "/" {
		e.Warnf("domain %s has the host's root as its own; %s refuses to start it", dom.Name, integrate.EmulatorName)
	}
	if e.JSON {
		return e.PrintJSON(struct {
			ID         string `json:"id"`
			Name       string `json:"name"`
			Definition string `json:"definition"`
		}{dom.ID(), dom.Name, string(after)})
	}
	_, err = e.Stdout.Write(after)
	return err
}

// readDefinition reads a file, or standard input for "-".
func readDefinition(e *answer.Env, file string) ([]byte, error) {
	in := e.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, libvirt.MaxSize+1))
}
