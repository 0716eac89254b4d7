// SPDX-License-Identifier: Apache-2.0

package policydb

// objectContexts reads the tables of contexts for objects without files, in the
// order of their numbers in the kernel.
func (r *reader) objectContexts(p *Policy) {
	c := &p.ObjectContexts
	_, tables := tableCounts(r.target, r.version)
	for i := range tables {
		if r.target == Xen {
			r.xenContexts(c, i)
		} else {
			r.selinuxContexts(c, i)
		}
		if r.err != nil {
			return
		}
	}
}

// list reads n entries that the function reads one by one.
func list[T any](r *reader, what string, size int, read func() T) []T {
	n := r.count(what, size)
	if n == 0 {
		return nil
	}
	out := make([]T, 0, n)
	for range n {
		e := read()
		if r.err != nil {
			return nil
		}
		out = append(out, e)
	}
	return out
}

// sizedName reads a length and a name of that length, which may be empty.
func (r *reader) sizedName(what string) string {
	off := r.off
	return r.text(off, r.u32("the length of a "+what), what)
}

func (r *reader) initialSIDs() []InitialSID {
	r.section = "initial SIDs"
	return list(r, "initial SIDs", 16, func() InitialSID {
		return InitialSID{SID: r.u32("an initial SID"), Context: r.context()}
	})
}

func (r *reader) selinuxContexts(c *ObjectContexts, table uint32) {
	switch table {
	case 0:
		c.InitialSIDs = r.initialSIDs()
	case 1:
		r.section = "file systems"
		c.Filesystems = list(r, "file systems", 28, func() FilesystemContext {
			return FilesystemContext{Name: r.sizedName("file system"), Context: r.context(), Files: r.context()}
		})
	case 2:
		r.section = "ports"
		c.Ports = list(r, "ports", 24, func() PortContext {
			return PortContext{
				Protocol: r.u32("a protocol"),
				Low:      r.u32("a low port"),
				High:     r.u32("a high port"),
				Context:  r.context(),
			}
		})
	case 3:
		r.section = "network interfaces"
		c.Interfaces = list(r, "network interfaces", 28, func() InterfaceContext {
			return InterfaceContext{Name: r.sizedName("network interface"), Context: r.context(), Messages: r.context()}
		})
	case 4:
		r.section = "nodes"
		c.Nodes = list(r, "nodes", 20, func() NodeContext {
			var n NodeContext
			copy(n.Address[:], r.take(4, "an address"))
			copy(n.Mask[:], r.take(4, "a mask"))
			n.Context = r.context()
			return n
		})
	case 5:
		r.section = "fs_use"
		c.FSUses = list(r, "fs_use rules", 20, func() FSUse {
			u := FSUse{Behavior: r.u32("a labelling behaviour")}
			u.Name = r.sizedName("file system")
			u.Context = r.context()
			return u
		})
	case 6:
		r.section = "IPv6 nodes"
		c.Nodes6 = list(r, "IPv6 nodes", 44, func() Node6Context {
			var n Node6Context
			copy(n.Address[:], r.take(16, "an address"))
			copy(n.Mask[:], r.take(16, "a mask"))
			n.Context = r.context()
			return n
		})
	case 7:
		r.section = "InfiniBand pkeys"
		c.PKeys = list(r, "InfiniBand pkeys", 28, func() PKeyContext {
			var k PKeyContext
			copy(k.SubnetPrefix[:], r.take(8, "a subnet prefix"))
			k.Low, k.High = r.u32("a low pkey"), r.u32("a high pkey")
			k.Context = r.context()
			return k
		})
	case 8:
		r.section = "InfiniBand end ports"
		c.EndPorts = list(r, "InfiniBand end ports", 20, func() EndPortContext {
			off := r.off
			length := r.u32("the length of a device")
			e := EndPortContext{Port: r.u32("a port")}
			e.Device = r.text(off, length, "device")
			e.Context = r.context()
			return e
		})
	}
}

func (r *reader) xenContexts(c *ObjectContexts, table uint32) {
	value := func() XenValueContext {
		return XenValueContext{Value: r.u32("a number"), Context: r.context()}
	}
	switch table {
	case 0:
		c.InitialSIDs = r.initialSIDs()
	case 1:
		r.section = "interrupts"
		c.PIRQs = list(r, "interrupts", 16, value)
	case 2:
		r.section = "I/O ports"
		c.IOPorts = list(r, "I/O ports", 20, func() XenRangeContext {
			return XenRangeContext{Low: uint64(r.u32("a low port")), High: uint64(r.u32("a high port")), Context: r.context()}
		})
	case 3:
		r.section = "I/O memory"
		c.IOMems = list(r, "I/O memory ranges", 20, func() XenRangeContext {
			if r.version >= versionXenDeviceTree {
				return XenRangeContext{Low: r.u64("a low page"), High: r.u64("a high page"), Context: r.context()}
			}
			return XenRangeContext{Low: uint64(r.u32("a low page")), High: uint64(r.u32("a high page")), Context: r.context()}
		})
	case 4:
		r.section = "PCI devices"
		c.PCIDevices = list(r, "PCI devices", 16, value)
	case 5:
		r.section = "device tree"
		c.DeviceTrees = list(r, "device tree paths", 16, func() DeviceTreeContext {
			return DeviceTreeContext{Path: r.sizedName("path"), Context: r.context()}
		})
	}
}

func (r *reader) genfs(p *Policy) {
	r.section = "genfs"
	p.Genfs = list(r, "genfs file systems", 8, func() Genfs {
		g := Genfs{Filesystem: r.sizedName("file system")}
		g.Entries = list(r, "genfs paths", 20, func() GenfsEntry {
			return GenfsEntry{
				Path:    r.sizedName("path"),
				Class:   ClassID(r.u16("class of a genfs path")),
				Context: r.context(),
			}
		})
		return g
	})
}
