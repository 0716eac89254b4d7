// SPDX-License-Identifier: Apache-2.0

package integrate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/internal/configfile"
	"github.com/palisade-sec/palisade/internal/hostfacts"
	"github.com/palisade-sec/palisade/svirt/libvirt"
	"github.com/palisade-sec/palisade/target"
)

const (
	libvirtDir = "/etc/libvirt/lxc"
	// libvirtProfile is what AppArmor confines the daemon with, libvirtLocal the
	// file for what a host adds.
	libvirtProfile = "/etc/apparmor.d/usr.sbin.libvirtd"
	libvirtLocal   = "/etc/apparmor.d/local/usr.sbin.libvirtd"
)

// controllers are libvirt's own, the first of which a definition gets back whose
// former one is not known.
var controllers = []string{"/usr/lib/libvirt/libvirt_lxc", "/usr/libexec/libvirt_lxc"}

// EmulatorName is the program that libvirt starts in the place of its controller.
const EmulatorName = "palisade-lxc"

// ErrNoDefault says that libvirt has no setting for domains that name no emulator.
var ErrNoDefault = errors.New("libvirt has no default to set: each domain names its own emulator")

// libvirt plans the containers of libvirt: its own setting is one line in each
// definition.
func (o Options) libvirt() (Integration, error) {
	i := Integration{
		Engine: "libvirt", File: libvirtDir, Snippet: "<emulator>" + o.Wrapper + "</emulator>\n",
		Next: []string{
			"systemctl restart libvirtd   (or virtlxcd: it has read the definitions before; domains that run are left alone)",
			"a domain that runs: virsh -c lxc:/// destroy DOMAIN, then start DOMAIN",
			"a new one: palisade host integrate libvirt DOMAIN.xml | virsh -c lxc:/// define /dev/stdin",
		},
	}
	if o.Default {
		return i, ErrNoDefault
	}
	files, err := o.definitions("")
	if err != nil {
		return i, err
	}
	for _, file := range files {
		edits, err := o.edit(file, func(before []byte) ([]byte, error) {
			if d, err := libvirt.Parse(before); err != nil || d.Driver != "lxc" {
				return before, err
			}
			return libvirt.Edit{Emulator: o.Wrapper}.Apply(before)
		})
		if err != nil {
			return i, err
		}
		i.Edits = append(i.Edits, edits...)
	}
	profile, err := configfile.Read(o.path(libvirtProfile))
	if err != nil {
		return i, fmt.Errorf("%s: %w", libvirtProfile, err)
	}
	if profile == nil || slices.Contains([]string{"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/lib/libvirt"}, path.Dir(o.Wrapper)) {
		return i, nil
	}
	// The profile lets the daemon execute what is in the system's folders.
	edits, err := o.edit(libvirtLocal, func(before []byte) ([]byte, error) {
		block := blockBegin + "  " + o.Wrapper + " PUx,\n" + blockEnd
		text := removeBlock(before)
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
			text = append(text, '\n')
		}
		return append(text, block...), nil
	})
	if len(edits) > 0 {
		i.Next = append([]string{"apparmor_parser -r " + libvirtProfile}, i.Next...)
	}
	i.Edits = append(i.Edits, edits...)
	return i, err
}

// unlibvirt takes back what libvirt did.
func (o Options) unlibvirt() (Integration, error) {
	i := Integration{Engine: "libvirt", File: libvirtDir, Next: []string{"systemctl restart libvirtd   (or virtlxcd)"}}
	kept, err := o.definitions(configfile.BackupSuffix)
	if err != nil {
		return i, err
	}
	for _, file := range kept {
		edits, err := o.takeBack(strings.TrimSuffix(file, configfile.BackupSuffix), restoreEmulator)
		if err != nil {
			return i, err
		}
		i.Edits = append(i.Edits, edits...)
	}
	edits, err := o.takeBack(libvirtLocal, func(current, _ []byte) ([]byte, error) { return removeBlock(current), nil })
	if len(edits) > 0 {
		i.Next = append([]string{"apparmor_parser -r " + libvirtProfile}, i.Next...)
	}
	i.Edits = append(i.Edits, edits...)
	return i, err
}

// takeBack plans how a file loses Palisade's part, and becomes what it was when
// nothing else has changed.
func (o Options) takeBack(file string, without func(current, original []byte) ([]byte, error)) ([]configfile.Edit, error) {
	current, err := configfile.Read(o.path(file))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	original, found, err := configfile.ReadBackup(o.path(file))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file+configfile.BackupSuffix, err)
	}
	if !found {
		return nil, nil
	}
	var edits []configfile.Edit
	e := configfile.Edit{Path: file, Before: current, After: current}
	if current != nil { // else its domain is gone
		if e.After, err = without(current, original); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if original == nil && len(bytes.TrimSpace(e.After)) == 0 {
			e.After = nil
		}
	}
	if e.Changes() {
		edits = append(edits, e)
	}
	backup, err := configfile.Read(o.path(file + configfile.BackupSuffix))
	return append(edits, configfile.Edit{Path: file + configfile.BackupSuffix, Before: backup}), err
}

// restoreEmulator gives a definition the emulator that it had.
func restoreEmulator(current, original []byte) ([]byte, error) {
	d, err := libvirt.Parse(current)
	if err != nil || path.Base(d.Emulator) != EmulatorName {
		return current, err // somebody else has changed it
	}
	was := controllers[0]
	if o, err := libvirt.Parse(original); err == nil && o.Emulator != "" {
		was = o.Emulator
	}
	return libvirt.Edit{Emulator: was}.Apply(current)
}

// definitions are the files of libvirt's containers, below the root.
func (o Options) definitions(suffix string) ([]string, error) {
	entries, err := os.ReadDir(o.path(libvirtDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".xml"+suffix) && e.Type().IsRegular() {
			out = append(out, filepath.Join(libvirtDir, e.Name()))
		}
	}
	return out, nil
}

// libvirt tells how many of the containers that are defined start confined.
func (r reader) libvirt(rt *hostfacts.Runtime) {
	files, err := Options{Root: r.path("/")}.definitions("")
	if err != nil {
		rt.Detail = err.Error()
		return
	}
	all, wrapped := 0, 0
	for _, file := range files {
		text, err := configfile.Read(r.path(file))
		if err != nil {
			continue // its domain went away
		}
		d, err := libvirt.Parse(text)
		if err != nil || d.Driver != "lxc" {
			continue
		}
		all++
		if path.Base(d.Emulator) == EmulatorName {
			wrapped++
		}
	}
	if all > 0 {
		rt.Palisade = target.AnswerOf(all == wrapped)
		rt.Detail = fmt.Sprintf("%d of %d containers that are defined start through %s", wrapped, all, EmulatorName)
	}
}
