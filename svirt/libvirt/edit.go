// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/caps"
)

// Edit says what is to be different in a definition. What is empty stays.
type Edit struct {
	// Emulator is the program that libvirt starts for the container.
	Emulator string
	// Init is executed with the former first command and its arguments as its
	// arguments.
	Init string
	// Capabilities are all that the container has.
	Capabilities *caps.Set
	// ReadOnlyRoot makes the root read-only.
	ReadOnlyRoot bool
	// Masked are files and MaskedDirs folders to be hidden, ReadOnly paths to
	// be read-only. They have to exist in the container.
	Masked, MaskedDirs, ReadOnly []string
	// Label is the only label of the domain.
	Label *Seclabel
	// Policy is the one that the metadata ask for.
	Policy string
}

// Apply edits a definition. Doing it twice is for Emulator, Capabilities,
// ReadOnlyRoot, Label and Policy the same as doing it once.
func (x Edit) Apply(text []byte) ([]byte, error) {
	root, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("domain definition: %w", err)
	}
	d, err := domainElement(root)
	if err != nil {
		return nil, err
	}
	devices := d.find("devices")
	if devices == nil {
		return nil, fmt.Errorf("%w: it has no devices", ErrDomain)
	}
	var s []splice
	if x.Init != "" {
		init := d.find("os", "init")
		if init == nil || init.selfClosing() {
			return nil, fmt.Errorf("%w: it has no init", ErrDomain)
		}
		former := "<initarg>" + escape(init.string()) + "</initarg>"
		s = append(s, splice{init.content, init.close, escape(x.Init)}, splice{init.end, init.end, "\n" + indent(text, init) + former})
	}
	if x.Emulator != "" {
		tag := "<emulator>" + escape(x.Emulator) + "</emulator>"
		if e := devices.find("emulator"); e != nil {
			s = append(s, splice{e.begin, e.end, tag})
		} else {
			s = append(s, first(text, devices, tag))
		}
	}
	s = append(s, x.mounts(text, devices)...)
	if x.Capabilities != nil {
		s = append(s, x.capabilities(text, d))
	}
	if x.Label != nil {
		for _, e := range d.all("seclabel") {
			if m := e.attr("model"); m == "selinux" || m == "none" || m == "" {
				s = append(s, remove(text, e))
			}
		}
		s = append(s, last(text, d, x.Label.lines()...))
	}
	if x.Policy != "" {
		s = append(s, x.policy(text, d)...)
	}
	return apply(text, s)
}

func (x Edit) mounts(text []byte, devices *element) []splice {
	var s []splice
	if x.ReadOnlyRoot {
		for _, f := range devices.all("filesystem") {
			if t := f.find("target"); t != nil && t.attr("dir") == "/" && f.find("readonly") == nil {
				s = append(s, last(text, f, "<readonly/>"))
			}
		}
	}
	var lines []string
	add := func(kind, source, target string, readOnly bool) {
		lines = append(lines, "<filesystem type='"+kind+"'>", "  "+source, "  <target dir='"+escape(target)+"'/>")
		if readOnly {
			lines = append(lines, "  <readonly/>")
		}
		lines = append(lines, "</filesystem>")
	}
	// The container's own paths on themselves, and its own null device.
	for _, p := range x.ReadOnly {
		add("bind", "<source dir='"+escape(p)+"'/>", p, true)
	}
	for _, p := range x.Masked {
		add("bind", "<source dir='/dev/null'/>", p, false)
	}
	for _, p := range x.MaskedDirs {
		add("ram", "<source usage='4' units='KiB'/>", p, true)
	}
	if len(lines) > 0 {
		s = append(s, last(text, devices, lines...))
	}
	return s
}

// capabilities replaces, or adds, <features><capabilities>.
func (x Edit) capabilities(text []byte, d *element) splice {
	lines := []string{"<capabilities policy='deny'>"}
	for _, c := range (*x.Capabilities & names).List() {
		lines = append(lines, "  <"+strings.ToLower(strings.TrimPrefix(c.String(), "CAP_"))+" state='on'/>")
	}
	lines = append(lines, "</capabilities>")
	features := d.find("features")
	if features == nil {
		for i, l := range lines {
			lines[i] = "  " + l
		}
		lines = append(append([]string{"<features>"}, lines...), "</features>")
		return first(text, d, lines...)
	}
	if c := features.find("capabilities"); c != nil {
		return splice{c.begin, c.end, strings.Join(lines, "\n"+indent(text, c))}
	}
	return last(text, features, lines...)
}

func (l Seclabel) lines() []string {
	if l.Type == "dynamic" || l.Type == "none" {
		return []string{"<seclabel type='" + l.Type + "' model='" + escape(l.Model) + "'/>"}
	}
	// Relabelling of file systems is what the driver does not do.
	return []string{
		"<seclabel type='static' model='" + escape(l.Model) + "' relabel='no'>",
		"  <label>" + escape(l.Label) + "</label>",
		"</seclabel>",
	}
}

func (x Edit) policy(text []byte, d *element) []splice {
	tag := "<palisade:confine xmlns:palisade='" + Namespace + "' policy='" + escape(x.Policy) + "'/>"
	m := d.find("metadata")
	if m == nil {
		return []splice{first(text, d, "<metadata>", "  "+tag, "</metadata>")}
	}
	var s []splice
	for _, k := range m.kids {
		if k.space == Namespace && k.name == "confine" {
			s = append(s, splice{k.begin, k.end, tag})
			tag = ""
		}
	}
	if tag != "" {
		s = append(s, last(text, m, tag))
	}
	return s
}
