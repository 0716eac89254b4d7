// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"cmp"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/diag"
)

// maxTransitions is how many different profiles the exec rules of one profile
// may name: four bits of index, of which the first values mean something else.
//
// Source: parser/immunix.h, AA_EXEC_COUNT.
const maxTransitions = 12

// profile reads a profile's header and body. Includes start anew in it.
func (r *resolver) profile(n *Profile, parent *blockBody) *profileDraft {
	if r.nested++; r.nested > maxInclude {
		r.errorf(n.Name.Pos, "AA-INCLUDE-DEPTH", "profiles are nested more than %d deep", maxInclude)
		r.nested--
		return nil
	}
	defer func() { r.nested-- }()
	outer := r.once
	r.once = map[string]bool{}
	defer func() { r.once = outer }()

	d := &profileDraft{decl: n, via: r.via}
	stack, ns, local, bad := parseLabel(n.Name.Value)
	if bad == "" && stack {
		bad = "the name of a profile begins with '/' or a namespace"
	}
	if bad != "" {
		r.errorf(n.Name.Pos, "AA-PROFILE-NAME", "%s", bad)
		return nil
	}
	d.ns, d.name = ns, local
	if parent == nil && n.Kind == KindBare && !strings.HasPrefix(local, "/") && ns == "" {
		r.errorf(n.Name.Pos, "AA-PROFILE-NAME", "the name of a profile begins with '/' or a namespace, or the keyword profile or hat stands before it")
	}
	if a := n.Attachment.Value; !n.Attachment.IsZero() && !strings.HasPrefix(a, "/") && !strings.HasPrefix(a, "@{") {
		r.errorf(n.Attachment.Pos, "AA-ATTACHMENT", "an attachment begins with '/' or a variable")
	}
	if n.HasXattrs {
		switch {
		case n.CondName.Value != "xattrs":
			r.errorf(n.CondName.Pos, "AA-PROFILE-CONDITION", "%s=( … ) does not go with a profile; only xattrs does", n.CondName.Value)
		case n.IsHat() && len(n.Xattrs) > 0 && parent != nil:
			r.errorf(n.CondName.Pos, "AA-HAT-XATTRS", "a hat has no attachment, so xattrs do not go with it")
		}
	}
	for _, list := range n.Identities {
		for _, w := range list {
			if !strings.HasPrefix(w.Value, "/") && strings.Contains(w.Value, " ") {
				r.errorf(w.Pos, "AA-IDENTITY", "an identity has no spaces in it: '%s'", w.Value)
			}
		}
	}
	d.flags = r.flags(n)
	d.flags.Hat = n.IsHat()
	r.rules(n.Rules, &d.body)
	r.transitions(d)
	return d
}

// flags reads the flags of a profile.
//
// Source: parser/profile.h, class flagvals.
func (r *resolver) flags(n *Profile) ProfileFlags {
	var f ProfileFlags
	for _, w := range n.Flags {
		conflict := func(with string) {
			r.errorf(w.Pos, "AA-FLAG-CONFLICT", "flag %s conflicts with %s", w.Value, with)
		}
		name, value, hasValue := strings.Cut(w.Value, "=")
		if m, ok := profileModes[w.Value]; ok {
			if f.Mode != ProfileUnspecified && f.Mode != m {
				conflict(f.Mode.String())
			}
			f.Mode = m
			continue
		}
		if p, ok := pathFlags[w.Value]; ok {
			f.Path |= p[0]
			if f.Path&p[1] != 0 {
				conflict("a flag before it")
			}
			continue
		}
		setPath := func(into *string, bit uint32) {
			f.Path |= bit
			if f.Path&pathNoAttach != 0 {
				conflict("no_attach_disconnected")
			}
			if *into != "" && *into != value {
				conflict("the value before it")
			}
			if !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "@") {
				r.errorf(w.Pos, "AA-FLAG", "the path of %s begins with '/'", name)
			}
			*into = value
		}
		switch {
		case w.Value == "audit":
			f.Audit = true
		case w.Value == "debug":
			f.Debug = true
		case w.Value == "interruptible":
			f.Interruptible = true
		case hasValue && name == "attach_disconnected.path":
			setPath(&f.DisconnectedPath, PathAttachDisconn)
		case hasValue && name == "attach_disconnected.ipc":
			setPath(&f.DisconnectedIPC, PathIPCAttach)
		case hasValue && name == "kill.signal":
			s := findSignal(value)
			switch {
			case s < 0:
				r.errorf(w.Pos, "AA-SIGNAL", "there is no signal %s", value)
			case f.KillSignal != 0 && f.KillSignal != s:
				conflict("the signal before it")
			default:
				f.KillSignal = s
			}
		case hasValue && name == "error":
			e, ok := errnos[strings.ToUpper(value)]
			switch {
			case !ok:
				r.errorf(w.Pos, "AA-FLAG", "there is no error %s", value)
			case f.Error != 0 && f.Error != e:
				conflict("the error before it")
			default:
				f.Error = e
			}
		default:
			r.errorf(w.Pos, "AA-FLAG", "there is no flag %s", w.Value)
		}
	}
	return f
}

// transitions counts and completes the targets of exec rules.
//
// Source: parser/profile.cc, add_named_transition.
func (r *resolver) transitions(d *profileDraft) {
	seen := map[string]bool{}
	// The reference parser prepends the rules it reads, and so meets the last
	// one first.
	for _, dr := range slices.Backward(d.body.drafts) {
		b, ok := dr.Body.(*FileBody)
		if !ok || b.Exec.Target == "" {
			continue
		}
		t := b.Exec.Target
		if !labelHasNamespace(t) {
			sub := strings.Index(t, "//")
			switch {
			case sub >= 0 && !strings.HasPrefix(d.name, t[:sub]) && t[sub+2:] == b.Path,
				b.Exec.Kind == ExecChild && t == b.Path:
				// The target is what a child exec without target takes.
				b.Exec.Kind, b.Exec.Target = ExecChild, ""
				continue
			case b.Exec.Kind == ExecChild:
				t = d.name + "//" + t
			}
		}
		b.Exec.Target = t
		if seen[t] = true; len(seen) == maxTransitions+1 {
			r.errorf(dr.Span, "AA-TRANSITIONS", "profile %s names more than %d different profiles in its exec rules", d.name, maxTransitions)
		}
	}
}

// finish expands variables, applies aliases, adds implied rules and checks the
// profiles as wholes.
func (r *resolver) finish() {
	slices.SortStableFunc(r.alias, func(a, b aliasRule) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	r.emit(r.profiles, nil)
}

// byName is the order in which the parser emits profiles: those with a
// namespace first.
func byName(a, b *profileDraft) int {
	switch {
	case a.ns != "" && b.ns == "":
		return -1
	case a.ns == "" && b.ns != "":
		return 1
	}
	return cmp.Or(cmp.Compare(a.ns, b.ns), cmp.Compare(a.name, b.name))
}

func (r *resolver) emit(list []*profileDraft, parent *ResolvedProfile) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, byName)
	for _, d := range list {
		p := r.finishProfile(d, parent)
		r.policy.Profiles = append(r.policy.Profiles, p)
		r.emit(d.body.hats, p)
	}
}

// expand replaces the variables in a glob and reports what goes wrong.
func (r *resolver) expand(s string, at diag.Span) string {
	if !strings.Contains(s, "@{") {
		return s
	}
	out, err := r.vars.inGlob(s)
	if err != nil {
		r.errorf(at, "AA-VARIABLE", "%s", err)
		return s
	}
	return out
}

func (r *resolver) finishProfile(d *profileDraft, parent *ResolvedProfile) *ResolvedProfile {
	n := d.decl
	r.via = d.via
	defer func() { r.via = nil }()
	p := &ResolvedProfile{
		Namespace: d.ns, Parent: parent, Flags: d.flags, Caps: d.body.caps, Rlimits: d.body.rlimits,
		Decl: n, Via: d.via,
	}
	if parent != nil && p.Namespace == "" {
		p.Namespace = parent.Namespace
	}
	p.Local = r.expand(d.name, n.Name.Pos)
	p.Name = p.Local
	if parent != nil {
		p.Name = parent.Name + "//" + p.Local
	}
	switch {
	case !n.Attachment.IsZero():
		p.Attachment = dfa.FilterSlashes(r.expand(n.Attachment.Value, n.Attachment.Pos))
	case strings.HasPrefix(p.Local, "/"):
		p.Attachment = dfa.FilterSlashes(localName(p.Local))
	}
	p.Flags.DisconnectedPath = r.disconnected(d.flags.DisconnectedPath, n)
	p.Flags.DisconnectedIPC = r.disconnected(d.flags.DisconnectedIPC, n)
	for _, c := range n.Xattrs {
		x := Xattr{Name: c.Name.Value, Value: "**"}
		if c.Op == CondEq && len(c.Values) > 0 {
			x.Value = c.Values[0].Value
		}
		p.Xattrs = append(p.Xattrs, x)
	}
	for _, list := range n.Identities {
		for _, w := range list {
			p.Identities = append(p.Identities, w.Value)
		}
	}

	// The names of the profile are variables of its rules.
	defer r.declare("profile_name", escapeGlob(p.Name))()
	if p.Attachment != "" {
		defer r.declare("attach_path", p.Attachment)()
		defer r.declare("exec_path", p.Attachment)()
	}
	drafts := r.implied(d, p)
	for _, dr := range drafts {
		r.expandBody(dr)
	}
	drafts = r.applyAliases(p, drafts)
	for _, dr := range drafts {
		if !dr.settle() {
			continue
		}
		dr.ID = len(p.Rules)
		p.Rules = append(p.Rules, dr.ResolvedRule)
		if dr.Mode == ModePrompt {
			p.PromptRules = true
		}
	}
	r.checkProfile(p)
	return p
}

// declare sets a variable until the function that it returns is called.
func (r *resolver) declare(name, value string) (restore func()) {
	old, had := r.vars.m[name]
	r.vars.m[name] = newSetVariable(value)
	return func() {
		if had {
			r.vars.m[name] = old
		} else {
			delete(r.vars.m, name)
		}
	}
}

// disconnected completes the path of attach_disconnected.
func (r *resolver) disconnected(s string, n *Profile) string {
	if s == "" {
		return ""
	}
	variable := strings.HasPrefix(s, "@")
	s = dfa.FilterSlashes(r.expand(s, n.Name.Pos))
	if variable && !strings.HasPrefix(s, "/") {
		r.errorf(n.Name.Pos, "AA-FLAG", "the path of attach_disconnected begins with '/', not '%s'", s)
	}
	return strings.TrimRight(s, "/")
}

// localName is what stands after the last "//".
func localName(s string) string {
	for {
		i := strings.Index(s, "//")
		if i < 0 {
			return s
		}
		s = s[i+2:]
	}
}

// escapeGlob escapes what a glob would take for a wildcard.
func escapeGlob(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s) {
			b.WriteString(s[i : i+2])
			i++
			continue
		}
		if strings.IndexByte("{}[]*?", c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

const (
	changeHatPath     = "/proc/[0-9]*/attr/{apparmor/,}current"
	changeProfilePath = "/proc/*/attr/{apparmor/,}{current,exec}"
)

// implied lists the rules of a profile with those that follow from them.
//
// Source: parser/profile.cc, add_proc_access; parser/all_rule.cc.
func (r *resolver) implied(d *profileDraft, p *ResolvedProfile) []*draft {
	var out []*draft
	var change *draft
	for _, dr := range d.body.drafts {
		switch dr.Body.(type) {
		case *allBody:
			out = append(out, r.takeApart(dr, p)...)
			continue
		case *ChangeProfileBody:
			change = dr
		}
		out = append(out, dr)
	}
	proc := func(path string, from *draft) {
		for _, e := range []FileBody{
			{Path: "/proc/*/attr/apparmor/", Perms: MayRead},
			{Path: "/sys/module/apparmor/parameters/enabled", Perms: MayRead},
			{Path: path, Perms: MayWrite},
		} {
			rule := &ResolvedRule{Body: &e, Implied: true, Span: d.decl.Name.Pos, Via: d.via}
			if from != nil {
				rule.Source, rule.Span, rule.Via = from.Source, from.Span, from.Via
			}
			out = append(out, &draft{ResolvedRule: rule, owners: 1})
		}
	}
	if change != nil {
		proc(changeProfilePath, change)
	}
	if p.Flags.Hat || len(d.body.hats) > 0 {
		proc(changeHatPath, nil)
	}
	return out
}

// takeApart makes one rule of each class out of "all".
func (r *resolver) takeApart(all *draft, p *ResolvedProfile) []*draft {
	deny := all.Mode == ModeDeny
	var out []*draft
	add := func(b Body) *draft {
		rule := *all.ResolvedRule
		rule.Body, rule.Implied = b, true
		d := &draft{ResolvedRule: &rule, audit: all.audit, owners: 3}
		out = append(out, d)
		return d
	}
	add(&UnixBody{Perms: NetAll, Type: -1, FromNetworkRule: true})
	add(&DBusBody{Perms: dbusAll})
	add(&IOUringBody{Perms: IOUringOverrideCreds | IOUringSQPoll})
	add(&MqueueBody{Perms: mqueueAll})
	add(&PtraceBody{Perms: ptraceAll})
	add(&SignalBody{Perms: signalAll})
	add(&UsernsBody{Perms: UsernsCreate})
	every := []uint32{MSAll}
	add(&MountBody{Perms: MayMount, Flags: every, OptFlags: every})
	add(&MountBody{Perms: MayMount, Flags: []uint32{MSRemount}, OptFlags: []uint32{MSAll &^ (MSMove | MSRemount)}})
	add(&MountBody{Perms: MayUmount, Flags: every, OptFlags: every})
	add(&PivotRootBody{})
	net := &NetworkBody{Perms: NetAll, All: true}
	for f := range afMax {
		net.Matches = append(net.Matches, NetMatch{Family: uint16(f), Types: AnyType, Protocol: AnyType})
	}
	add(net)
	file := add(&FileBody{Path: "/{**,}", Perms: MayRead | MayWrite | MayAppend | MayLink | MayLock | MayMmap})
	if deny {
		file.owners = 1 // the reference parser denies files of the own user only here
	}
	exec := &FileBody{Path: "/{**,}", Perms: MayExec}
	if !deny {
		exec.Exec.Kind = ExecInherit
	}
	add(exec).Priority = all.Priority - 1
	addCaps(&p.Caps, all.Mode, all.audit == auditForced, ^uint64(0))
	return out
}

// expandBody replaces the variables in a rule. Network and io_uring rules take
// none.
func (r *resolver) expandBody(d *draft) {
	old := r.via
	r.via = d.Via
	defer func() { r.via = old }()
	one := func(s *string) { *s = r.expand(*s, d.Span) }
	opt := func(o *Opt) { one(&o.Value) }
	path := func(o *Opt) {
		opt(o)
		o.Value = dfa.FilterSlashes(o.Value)
	}
	switch b := d.Body.(type) {
	case *FileBody:
		c := *b
		one(&c.Path)
		one(&c.LinkTarget)
		d.Body = &c
	case *ChangeProfileBody:
		c := *b
		one(&c.Target)
		one(&c.Exec)
		d.Body = &c
	case *SignalBody:
		c := *b
		opt(&c.Peer)
		d.Body = &c
	case *PtraceBody:
		c := *b
		opt(&c.Peer)
		d.Body = &c
	case *MountBody:
		c := *b
		path(&c.MountPoint)
		path(&c.Device)
		c.FSTypes = slices.Clone(b.FSTypes)
		for i := range c.FSTypes {
			one(&c.FSTypes[i])
		}
		d.Body = &c
	case *PivotRootBody:
		c := *b
		path(&c.NewRoot)
		path(&c.OldRoot)
		one(&c.Target)
		d.Body = &c
	case *UnixBody:
		c := *b
		opt(&c.Label)
		opt(&c.PeerLabel)
		path(&c.Addr)
		path(&c.PeerAddr)
		d.Body = &c
	case *DBusBody:
		c := *b
		for _, o := range []*Opt{&c.Bus, &c.Name, &c.PeerLabel, &c.Interface, &c.Member} {
			opt(o)
		}
		path(&c.Path)
		d.Body = &c
	case *MqueueBody:
		c := *b
		opt(&c.Name)
		opt(&c.Label)
		d.Body = &c
	}
}

// applyAliases adds, for every rule about a path below an alias, one about the
// alias's other name. Nothing is aliased twice.
func (r *resolver) applyAliases(p *ResolvedProfile, drafts []*draft) []*draft {
	if len(r.alias) == 0 {
		return drafts
	}
	name := p.Attachment
	if name == "" {
		name = p.Local
	}
	for _, a := range r.alias {
		if rest, ok := strings.CutPrefix(name, a.from); ok {
			p.AltNames = append(p.AltNames, dfa.FilterSlashes(a.to+rest))
		}
	}
	var out []*draft
	for _, d := range drafts {
		if len(out) > maxRules {
			r.errorf(p.Decl.Name.Pos, "AA-TOO-LARGE", "profile %s has more than %d rules", p.Name, maxRules)
			return out
		}
		out = append(out, d)
		b, ok := d.Body.(*FileBody)
		if !ok {
			continue
		}
		for _, a := range r.alias {
			c := *b
			path, link := strings.HasPrefix(b.Path, a.from), b.LinkTarget != "" && strings.HasPrefix(b.LinkTarget, a.from)
			if !path && !link {
				continue
			}
			if path {
				c.Path = a.to + b.Path[len(a.from):]
			}
			if link {
				c.LinkTarget = a.to + b.LinkTarget[len(a.from):]
			}
			rule := *d.ResolvedRule
			rule.Body, rule.Alias = &c, true
			out = append(out, &draft{ResolvedRule: &rule, audit: d.audit, owners: d.owners})
		}
	}
	return out
}
