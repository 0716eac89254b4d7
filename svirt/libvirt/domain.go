// SPDX-License-Identifier: Apache-2.0

// Package libvirt reads the definitions of libvirt's domains, and edits them
// leaving everything else byte for byte what it was: those that a person writes,
// and those of running domains that libvirt keeps.
//
// Source: https://libvirt.org/formatdomain.html; src/conf/domain_conf.c,
// src/lxc/lxc_container.c of libvirt 9.0.
package libvirt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/caps"
)

// Namespace is that of Palisade's element in a domain's <metadata>:
//
//	<palisade:confine xmlns:palisade="…" policy="strict"/>
const Namespace = "https://palisade-sec.github.io/libvirt/1"

// Domain is what of a definition matters here.
type Domain struct {
	// Driver is the type of the domain: lxc, qemu, kvm, …
	Driver   string
	Name     string
	UUID     string
	Emulator string
	// Init and InitArgs are the first command of a container.
	Init     string
	InitArgs []string
	Labels   []Seclabel
	// Policy is the policy that the metadata asks for; empty without.
	Policy      string
	Filesystems []Filesystem
	// Network tells whether a container has a network of its own. One without
	// has the host's.
	Network bool
	// UserNamespace tells whether a container has a user namespace.
	UserNamespace bool

	capabilities capabilities
}

// Seclabel is one security label of a domain.
type Seclabel struct {
	// Type is dynamic, static or none, Model selinux, apparmor, dac or none.
	Type, Model string
	// Label is the label of the processes, ImageLabel that of the content.
	Label, ImageLabel string
}

// Filesystem is one mount of a container. The root has the target "/".
type Filesystem struct {
	Type, Source, Target string
	ReadOnly             bool
}

type capabilities struct {
	policy  string
	on, off caps.Set
}

// ErrDomain is the error of a document that defines no domain.
var ErrDomain = errors.New("not a domain definition")

// Parse reads the definition of a domain, or the status file of a running one.
func Parse(text []byte) (*Domain, error) {
	root, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("domain definition: %w", err)
	}
	d, err := domainElement(root)
	if err != nil {
		return nil, err
	}
	return read(d)
}

func domainElement(root *element) (*element, error) {
	if root.name == "domstatus" && root.space == "" {
		root = root.find("domain")
	}
	if root == nil || root.name != "domain" || root.space != "" {
		return nil, ErrDomain
	}
	return root, nil
}

func read(e *element) (*Domain, error) {
	d := &Domain{
		Driver: e.attr("type"), Name: e.find("name").string(), UUID: e.find("uuid").string(),
		Emulator: e.find("devices", "emulator").string(), Init: e.find("os", "init").string(),
		UserNamespace: e.find("idmap") != nil,
	}
	for _, a := range e.find("os").all("initarg") {
		d.InitArgs = append(d.InitArgs, a.text)
	}
	for _, s := range e.all("seclabel") {
		d.Labels = append(d.Labels, Seclabel{
			Type: s.attr("type"), Model: s.attr("model"), Label: s.find("label").string(), ImageLabel: s.find("imagelabel").string(),
		})
	}
	devices := e.find("devices")
	for _, f := range devices.all("filesystem") {
		fs := Filesystem{Type: f.attr("type"), ReadOnly: f.find("readonly") != nil}
		if fs.Type == "" {
			fs.Type = "mount"
		}
		if s := f.find("source"); s != nil {
			for _, name := range []string{"dir", "file", "dev", "name"} {
				fs.Source += s.attr(name)
			}
		}
		if t := f.find("target"); t != nil {
			fs.Target = t.attr("dir")
		}
		d.Filesystems = append(d.Filesystems, fs)
	}
	d.Network = len(devices.all("interface")) > 0
	if p := e.find("features", "privnet"); p != nil && p.attr("state") != "off" {
		d.Network = true
	}
	for _, h := range devices.all("hostdev") {
		d.Network = d.Network || h.attr("mode") == "capabilities" && h.attr("type") == "net"
	}
	if m := e.find("metadata"); m != nil {
		for _, k := range m.kids {
			if k.space == Namespace && k.name == "confine" {
				d.Policy = k.attr("policy")
			}
		}
	}
	return d, d.readCapabilities(e.find("features", "capabilities"))
}

// names are the capabilities that libvirt can name.
var names = caps.Of(
	caps.AuditControl, caps.AuditWrite, caps.BlockSuspend, caps.Chown, caps.DACOverride, caps.DACReadSearch, caps.Fowner,
	caps.Fsetid, caps.IPCLock, caps.IPCOwner, caps.Kill, caps.Lease, caps.LinuxImmutable, caps.MACAdmin, caps.MACOverride,
	caps.Mknod, caps.NetAdmin, caps.NetBindService, caps.NetBroadcast, caps.NetRaw, caps.Setgid, caps.Setfcap, caps.Setpcap,
	caps.Setuid, caps.SysAdmin, caps.SysBoot, caps.SysChroot, caps.SysModule, caps.SysNice, caps.SysPacct, caps.SysPtrace,
	caps.SysRawio, caps.SysResource, caps.SysTime, caps.SysTTYConfig, caps.Syslog, caps.WakeAlarm,
)

// dropped are what the driver takes away unless a definition asks for it.
var dropped = caps.Of(caps.SysModule, caps.SysTime, caps.Mknod, caps.AuditControl, caps.MACAdmin)

func (d *Domain) readCapabilities(e *element) error {
	d.capabilities.policy = "default"
	if e == nil {
		return nil
	}
	if p := e.attr("policy"); p != "" {
		d.capabilities.policy = p
	}
	if !slices.Contains([]string{"default", "allow", "deny"}, d.capabilities.policy) {
		return fmt.Errorf("domain %s: capabilities: unknown policy %q", d.Name, d.capabilities.policy)
	}
	for _, k := range e.kids {
		c, err := caps.Parse(k.name)
		if err != nil {
			return fmt.Errorf("domain %s: capabilities: %w", d.Name, err)
		}
		if k.attr("state") == "off" {
			d.capabilities.off = d.capabilities.off.With(c)
		} else {
			d.capabilities.on = d.capabilities.on.With(c)
		}
	}
	return nil
}

// Capabilities is what the driver gives to the container, of those that libvirt
// can name.
func (d *Domain) Capabilities() caps.Set {
	switch d.capabilities.policy {
	case "deny":
		return d.capabilities.on & names
	case "allow":
		return names.Minus(d.capabilities.off)
	}
	return names.Minus(dropped.Minus(d.capabilities.on)).Minus(d.capabilities.off)
}

// Label is the label of a security model, nil without one.
func (d *Domain) Label(model string) *Seclabel {
	for i, s := range d.Labels {
		if s.Model == model {
			return &d.Labels[i]
		}
	}
	return nil
}

// Root is the file system that becomes the root, nil when the container has the
// host's.
func (d *Domain) Root() *Filesystem {
	for i, f := range d.Filesystems {
		if f.Target == "/" {
			return &d.Filesystems[i]
		}
	}
	return nil
}

// ID is the name of a domain outside of libvirt, where the domains of all drivers
// are together: lxc-NAME, or with the UUID where the name has other characters
// than a container's may have.
func (d *Domain) ID() string {
	driver := d.Driver
	if driver == "kvm" {
		driver = "qemu" // one driver, whose domains have names of their own
	}
	name := d.Name
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_+.-", c)
	}
	const longest = 120
	if len(name) > longest || strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }) {
		name = d.UUID
	}
	return driver + "-" + name
}
