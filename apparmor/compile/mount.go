// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"errors"
	"fmt"
	"strings"

	"github.com/palisade-sec/palisade/apparmor"
)

// Mount flags. Source: include/uapi/linux/mount.h.
const (
	msReadOnly    = 1 << 0
	msNoSUID      = 1 << 1
	msNoDev       = 1 << 2
	msNoExec      = 1 << 3
	msSync        = 1 << 4
	msRemount     = 1 << 5
	msMand        = 1 << 6
	msDirSync     = 1 << 7
	msNoSymfollow = 1 << 8
	msNoAtime     = 1 << 10
	msNoDirAtime  = 1 << 11
	msBind        = 1 << 12
	msMove        = 1 << 13
	msRec         = 1 << 14
	msSilent      = 1 << 15
	msACL         = 1 << 16
	msUnbindable  = 1 << 17
	msPrivate     = 1 << 18
	msSlave       = 1 << 19
	msShared      = 1 << 20
	msRelatime    = 1 << 21
	msIVersion    = 1 << 23
	msStrictAtime = 1 << 24
	msLazytime    = 1 << 25
	msNoUser      = 1 << 31

	msAll3 = msReadOnly | msNoSUID | msNoDev | msNoExec | msSync | msRemount | msMand | msDirSync | msNoAtime |
		msNoDirAtime | msBind | msRec | msMove | msSilent | msACL | msMakeTypes | msRelatime | msIVersion | msStrictAtime
	msAll4      = msAll3 | msNoSymfollow | msLazytime
	msMakeTypes = msUnbindable | msPrivate | msSlave | msShared
	msMake      = msMakeTypes | msRec
	msBindFlags = msBind | msRec
	msCommands  = msMove | msRemount | msBindFlags | msMake
	// What the kernel takes away before it looks at a change of propagation.
	msMountpoint = msNoSUID | msNoExec | msNoDev | msNoAtime | msNoDirAtime | msRelatime | msStrictAtime

	// mountMore says that the mount data have to match too. It shares its bit
	// with the flag that data are audited.
	mountMore = 0x40
)

// flagText writes flags as the kernel presents them: byte i+1 for each set bit
// i, in ascending order; optional ones may be missing.
func flagText(flags, optional, all uint32) string {
	if flags == all {
		return anyText
	}
	var t strings.Builder
	for i := range 32 {
		switch bit := uint32(1) << i; {
		case optional&bit != 0:
			t.WriteString("(" + byteText(i+1) + "|)")
		case flags&bit != 0:
			t.WriteString(byteText(i + 1))
		}
	}
	if t.Len() == 0 {
		return `(\xfe|)`
	}
	return t.String()
}

// clearing are the options that ask for a flag to be off. In AppArmor 3 they
// count as flags where it decides whether a rule is about options at all.
var clearing = map[string]uint32{
	"rw": msReadOnly, "w": msReadOnly, "suid": msNoSUID, "dev": msNoDev, "exec": msNoExec, "async": msSync,
	"nomand": msMand, "atime": msNoAtime, "diratime": msNoDirAtime, "loud": msSilent, "noacl": msACL,
	"norelatime": 0, "noiversion": msIVersion, "user": msNoUser, "symfollow": msNoSymfollow,
	"nostrictatime": msStrictAtime, "nolazytime": msLazytime,
}

// cleared collects the flags that the options of a rule as written turn off.
func cleared(r *apparmor.ResolvedRule) uint32 {
	m, ok := r.Source.(*apparmor.MountRule)
	if !ok {
		return 0
	}
	var mask uint32
	for _, c := range m.Conds {
		if (c.Name.Value == "options" || c.Name.Value == "option") && c.Op == apparmor.CondEq {
			for _, v := range c.Values {
				mask |= clearing[v.Value]
			}
		}
	}
	return mask
}

// forgotten are flags that only an option that AppArmor 3 takes for nothing
// named: norelatime.
func forgotten(r *apparmor.ResolvedRule) uint32 {
	m, ok := r.Source.(*apparmor.MountRule)
	if !ok {
		return 0
	}
	var mask uint32
	for _, c := range m.Conds {
		for _, v := range c.Values {
			switch v.Value {
			case "relatime":
				return 0
			case "norelatime":
				mask = msRelatime
			}
		}
	}
	return mask
}

func isRemount(r *apparmor.ResolvedRule) bool {
	m, ok := r.Source.(*apparmor.MountRule)
	return ok && m.Kind == apparmor.Remount
}

// mergeMounts joins the permissions of mount, umount and pivot_root rules that
// have the same conditions, as AppArmor 4 does before it writes them. The kernel
// looks at one of the bits at a time, so no decision changes.
func (b *build) mergeMounts() {
	if b.s.level == Level3 {
		return
	}
	byConditions := map[string][]*apparmor.ResolvedRule{}
	perms := map[string]uint32{}
	for _, r := range b.rp.Rules {
		var key string
		var p uint32
		switch body := r.Body.(type) {
		case *apparmor.MountBody:
			flags, optional := body.Flags, body.OptFlags
			if body.Perms&apparmor.MayMount == 0 {
				flags, optional = []uint32{apparmor.MSAll}, []uint32{apparmor.MSAll}
			}
			key, p = fmt.Sprintf("%#v %#v %q %v %v", body.MountPoint, body.Device, body.FSTypes, flags, optional), body.Perms
		case *apparmor.PivotRootBody:
			all := []uint32{apparmor.MSAll}
			key, p = fmt.Sprintf("%#v %#v %q %v %v", body.NewRoot, body.OldRoot, []string(nil), all, all), apparmor.MayPivotRoot
		default:
			continue
		}
		key = fmt.Sprint(r.Priority, r.Mode, r.Audit, " ", key)
		byConditions[key] = append(byConditions[key], r)
		perms[key] |= p
	}
	b.mounts = map[*apparmor.ResolvedRule]uint32{}
	for key, list := range byConditions {
		for _, r := range list {
			b.mounts[r] = perms[key]
		}
	}
}

// mountPerms are the permissions that a mount rule's expressions get.
func (b *build) mountPerms(r *apparmor.ResolvedRule, own uint32) uint32 {
	if p := b.mounts[r]; p != 0 {
		return p
	}
	return own
}

func (b *build) mount(r *apparmor.ResolvedRule, body *apparmor.MountBody) error {
	if !b.s.mount {
		b.unsupported(r, "mount")
		return nil
	}
	if rest := body.Perms & (apparmor.MayUmount | apparmor.MayPivotRoot); rest != 0 {
		point, err := opt(classText(apparmor.ClassMount), body.MountPoint, anyText)
		if err != nil {
			return err
		}
		if rest&apparmor.MayUmount != 0 {
			if err := b.addPolicy(r, b.mountPerms(r, body.Perms), auditOf(r, b.mountPerms(r, body.Perms)), point); err != nil {
				return err
			}
		}
		if rest&apparmor.MayPivotRoot != 0 {
			if err := b.addPolicy(r, b.mountPerms(r, body.Perms), auditOf(r, b.mountPerms(r, body.Perms)), point, anyText); err != nil {
				return err
			}
		}
		if body.Perms&apparmor.MayMount == 0 {
			return nil
		}
	}
	if b.s.level == Level3 {
		return b.mount3(r, body)
	}
	return b.mountEach(r, body)
}

// mountEach writes a rule as AppArmor 4 does: for each combination of its
// flags.
func (b *build) mountEach(r *apparmor.ResolvedRule, body *apparmor.MountBody) error {
	count := 0
	for _, flags := range body.Flags {
		for _, optional := range body.OptFlags {
			n, err := b.mount4(r, body, flags, optional)
			if err != nil {
				return err
			}
			count += n
		}
	}
	if count == 0 {
		return errors.New("the mount rule's conditions exclude each other")
	}
	return nil
}

func (b *build) pivotRoot(r *apparmor.ResolvedRule, body *apparmor.PivotRootBody) error {
	if !b.s.mount {
		b.unsupported(r, "pivot_root")
		return nil
	}
	to, err := opt(classText(apparmor.ClassMount), body.NewRoot, anyText)
	if err != nil {
		return err
	}
	from, err := opt("", body.OldRoot, anyText)
	if err != nil {
		return err
	}
	if body.Target != "" {
		if _, err := b.named(body.Target); err != nil {
			return err
		}
	}
	perms := b.mountPerms(r, apparmor.MayPivotRoot)
	return b.addPolicy(r, perms, auditOf(r, perms), to, from)
}

// mountParts converts the conditions.
type mountParts struct{ point, device, fstype string }

func (b *build) mountParts(body *apparmor.MountBody, point apparmor.Opt, noDevice bool) (mountParts, error) {
	var p mountParts
	var err error
	if p.point, err = opt(classText(apparmor.ClassMount), point, anyText); err != nil {
		return p, err
	}
	if !noDevice {
		if p.device, err = opt("", body.Device, anyText); err != nil {
			return p, err
		}
	}
	p.fstype = anyText
	if len(body.FSTypes) > 0 {
		text := "("
		for i, t := range body.FSTypes {
			if i > 0 {
				text += "|"
			}
			if text, err = glob(text, t); err != nil {
				return p, err
			}
		}
		p.fstype = text + ")"
	}
	return p, nil
}

// mount4 writes one combination of flags as AppArmor 4 does: a rule without
// flags stands for every kind of mount, one with flags for one kind.
func (b *build) mount4(r *apparmor.ResolvedRule, body *apparmor.MountBody, flags, optional uint32) (int, error) {
	const all = msAll4
	everything := flags == all || flags != 0 && flags == optional && flags&msAll3 == msAll3
	if everything {
		flags, optional = all, all
	}
	count := 0
	dev, point, typed := body.Device.Set, body.MountPoint.Set, len(body.FSTypes) > 0
	detached := dev && body.Device.Value == "detached"
	add := func(p mountParts, mask uint32) error {
		count++
		perms := b.mountPerms(r, body.Perms)
		return b.addPolicy(r, perms, auditOf(r, perms), p.point, p.device, p.fstype, flagText(flags&mask, optional&mask, all))
	}
	remount := func() error {
		at := body.MountPoint
		if !at.Set {
			at = body.Device
		}
		p, err := b.mountParts(body, at, true)
		if err != nil {
			return err
		}
		p.device, p.fstype = anyText, anyText
		return add(p, all&^msMove)
	}
	withDevice := func(mask uint32, fstype bool) error {
		p, err := b.mountParts(body, body.MountPoint, detached)
		if err != nil {
			return err
		}
		if !fstype {
			p.fstype = anyText
		}
		return add(p, mask)
	}
	propagate := func() error {
		if flags != 0 && !everything && dev && point {
			return errors.New("a change of propagation takes a mount point and no source")
		}
		at := body.MountPoint
		if dev && !point {
			at = body.Device
		}
		p, err := b.mountParts(body, at, true)
		if err != nil {
			return err
		}
		p.device, p.fstype = anyText, anyText
		return add(p, all&^uint32(msMountpoint))
	}
	var err error
	switch {
	case flags == 0 || everything:
		steps := []struct {
			on bool
			do func() error
		}{
			{!dev && !typed, remount},
			{!typed, func() error { return withDevice(msBindFlags, false) }},
			{(!dev || !point) && !typed, propagate},
			{!typed, func() error { return withDevice(msMove, false) }},
			{true, func() error { return withDevice(all&^uint32(msCommands), true) }},
		}
		for _, s := range steps {
			if s.on {
				if err := s.do(); err != nil {
					return 0, err
				}
			}
		}
	case flags&msRemount != 0 && !dev && !typed:
		err = remount()
	case flags&msBind != 0 && !typed:
		err = withDevice(msBindFlags, false)
	case flags&msMake != 0 && (!dev || !point) && !typed:
		err = propagate()
	case flags&msMove != 0 && !typed:
		err = withDevice(msMove, false)
	case (flags|optional)&^msCommands != 0:
		err = withDevice(all&^uint32(msCommands), true)
	}
	return count, err
}

// mount3 writes a rule as AppArmor 3 does: one expression for every kind of
// mount that its flags touch.
func (b *build) mount3(r *apparmor.ResolvedRule, body *apparmor.MountBody) error {
	const all = uint32(msAll3)
	var flags, inverse uint32
	for _, f := range body.Flags {
		flags |= f
	}
	inverse = cleared(r)
	for _, o := range body.OptFlags {
		o &^= forgotten(r)
		flags |= o
		inverse |= o
	}
	switch {
	case isRemount(r):
		flags = flags&^optionalOnly(body) | msRemount
		for _, o := range body.OptFlags {
			if o != msAll4&^msMove&^msRemount { // what a bare remount stands for in AppArmor 4
				flags |= o
			}
		}
		inverse = 0
	case len(body.Flags) == 1 && len(body.OptFlags) == 1 && body.Flags[0] == body.OptFlags[0] && body.Flags[0]&all == all,
		flags|inverse == 0:
		flags, inverse = all, all
	}
	dev, typed := body.Device.Set, len(body.FSTypes) > 0
	count := 0
	add := func(p mountParts, f, inv, extra uint32) error {
		count++
		return b.addPolicy(r, body.Perms, auditOf(r, body.Perms)|extra, p.point, p.device, p.fstype, flagText(f, f&inv, all))
	}
	// only limits the flags, where the rule is not about all of them.
	only := func(mask uint32) uint32 {
		if flags == all && inverse == all {
			return flags
		}
		return flags & mask
	}
	if flags&msRemount != 0 && !dev && !typed {
		p, err := b.mountParts(body, body.MountPoint, true)
		if err != nil {
			return err
		}
		p.device, p.fstype = anyText, anyText
		if err := add(p, only(all&^(msCommands&^(msRemount|msBindFlags))), inverse, mountMore); err != nil {
			return err
		}
	}
	if flags&msBind != 0 && !typed {
		p, err := b.mountParts(body, body.MountPoint, false)
		if err != nil {
			return err
		}
		p.fstype = anyText
		if err := add(p, only(msBindFlags), inverse, 0); err != nil {
			return err
		}
	}
	if flags&msMakeTypes != 0 && !dev && !typed {
		p, err := b.mountParts(body, body.MountPoint, true)
		if err != nil {
			return err
		}
		p.device, p.fstype = anyText, anyText
		if err := add(p, only(msMake|all&^msMountpoint), inverse, 0); err != nil {
			return err
		}
	}
	if flags&msMove != 0 && !typed {
		p, err := b.mountParts(body, body.MountPoint, false)
		if err != nil {
			return err
		}
		p.fstype = anyText
		if err := add(p, only(msMove), inverse, 0); err != nil {
			return err
		}
	}
	if (flags|inverse)&^uint32(msCommands) != 0 {
		p, err := b.mountParts(body, body.MountPoint, false)
		if err != nil {
			return err
		}
		f, inv := flags, inverse
		if f != all {
			f &^= msCommands
		}
		if inv != all {
			inv &^= msCommands
		}
		if err := add(p, f, inv, mountMore); err != nil {
			return err
		}
	}
	if count == 0 {
		// AppArmor 3 refuses the rule; AppArmor 4 gave some of these a meaning.
		return b.mountEach(r, body)
	}
	return nil
}

// optionalOnly are the flags of a remount that were only optional.
func optionalOnly(body *apparmor.MountBody) uint32 {
	var o, f uint32
	for _, v := range body.OptFlags {
		o |= v
	}
	for _, v := range body.Flags {
		f |= v
	}
	return o &^ f
}
