// SPDX-License-Identifier: Apache-2.0

package policydb

func (w *writer) objectContexts() {
	_, tables := tableCounts(w.p.Target, w.version)
	for i := range tables {
		if w.p.Target == Xen {
			w.xenContexts(i)
		} else {
			w.selinuxContexts(i)
		}
	}
	c := &w.p.ObjectContexts
	if w.version < versionInfiniband && len(c.PKeys)+len(c.EndPorts) > 0 {
		w.failf("InfiniBand contexts need version %d", versionInfiniband)
	}
	if w.version < versionXenDeviceTree && len(c.DeviceTrees) > 0 {
		w.failf("device tree contexts need version %d", versionXenDeviceTree)
	}
}

// writeList writes the number of entries and then each of them.
func writeList[T any](w *writer, section string, entries []T, write func(*T)) {
	w.section = section
	w.u32(uint32(len(entries)))
	for i := range entries {
		write(&entries[i])
	}
}

func (w *writer) initialSIDs() {
	writeList(w, "initial SIDs", w.p.ObjectContexts.InitialSIDs, func(s *InitialSID) {
		w.u32(s.SID)
		w.context(s.Context)
	})
}

func (w *writer) selinuxContexts(table uint32) {
	c := &w.p.ObjectContexts
	switch table {
	case 0:
		w.initialSIDs()
	case 1:
		writeList(w, "file systems", c.Filesystems, func(f *FilesystemContext) {
			w.sizedName(f.Name)
			w.context(f.Context)
			w.context(f.Files)
		})
	case 2:
		writeList(w, "ports", c.Ports, func(p *PortContext) {
			w.u32(p.Protocol, p.Low, p.High)
			w.context(p.Context)
		})
	case 3:
		writeList(w, "network interfaces", c.Interfaces, func(n *InterfaceContext) {
			w.sizedName(n.Name)
			w.context(n.Context)
			w.context(n.Messages)
		})
	case 4:
		writeList(w, "nodes", c.Nodes, func(n *NodeContext) {
			w.buf = append(w.buf, n.Address[:]...)
			w.buf = append(w.buf, n.Mask[:]...)
			w.context(n.Context)
		})
	case 5:
		writeList(w, "fs_use", c.FSUses, func(u *FSUse) {
			w.u32(u.Behavior)
			w.sizedName(u.Name)
			w.context(u.Context)
		})
	case 6:
		writeList(w, "IPv6 nodes", c.Nodes6, func(n *Node6Context) {
			w.buf = append(w.buf, n.Address[:]...)
			w.buf = append(w.buf, n.Mask[:]...)
			w.context(n.Context)
		})
	case 7:
		writeList(w, "InfiniBand pkeys", c.PKeys, func(k *PKeyContext) {
			w.buf = append(w.buf, k.SubnetPrefix[:]...)
			w.u32(k.Low, k.High)
			w.context(k.Context)
		})
	case 8:
		writeList(w, "InfiniBand end ports", c.EndPorts, func(e *EndPortContext) {
			w.u32(w.length(e.Device), e.Port)
			w.text(e.Device)
			w.context(e.Context)
		})
	}
}

func (w *writer) xenContexts(table uint32) {
	c := &w.p.ObjectContexts
	value := func(v *XenValueContext) {
		w.u32(v.Value)
		w.context(v.Context)
	}
	switch table {
	case 0:
		w.initialSIDs()
	case 1:
		writeList(w, "interrupts", c.PIRQs, value)
	case 2:
		writeList(w, "I/O ports", c.IOPorts, w.xenRange32)
	case 3:
		if w.version < versionXenDeviceTree {
			writeList(w, "I/O memory", c.IOMems, w.xenRange32)
			return
		}
		writeList(w, "I/O memory", c.IOMems, func(m *XenRangeContext) {
			w.u64(m.Low)
			w.u64(m.High)
			w.context(m.Context)
		})
	case 4:
		writeList(w, "PCI devices", c.PCIDevices, value)
	case 5:
		writeList(w, "device tree", c.DeviceTrees, func(d *DeviceTreeContext) {
			w.sizedName(d.Path)
			w.context(d.Context)
		})
	}
}

func (w *writer) xenRange32(r *XenRangeContext) {
	if r.Low>>32 != 0 || r.High>>32 != 0 {
		w.failf("a range up to 0x%x needs version %d", r.High, versionXenDeviceTree)
	}
	w.u32(uint32(r.Low), uint32(r.High))
	w.context(r.Context)
}

func (w *writer) genfs() {
	writeList(w, "genfs", w.p.Genfs, func(g *Genfs) {
		w.sizedName(g.Filesystem)
		writeList(w, "genfs", g.Entries, func(e *GenfsEntry) {
			w.sizedName(e.Path)
			w.u32(uint32(e.Class))
			w.context(e.Context)
		})
	})
}
