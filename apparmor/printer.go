// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bytes"
	"io"
	"strconv"
	"strings"
)

// Print writes a tree as text that parses to the same tree: one statement a
// line, two spaces a level, comments kept, at most one blank line where there
// was at least one.
func Print(w io.Writer, f *File) error {
	p := &printer{}
	rules := make([]Rule, 0, len(f.Items))
	for _, it := range f.Items {
		if r, ok := it.(Rule); ok {
			rules = append(rules, r)
		}
	}
	p.rules(rules, 0)
	_, err := w.Write(p.Bytes())
	return err
}

// String is one rule or statement as text, without the line end.
func String(r Item) string {
	p := &printer{}
	if n, ok := r.(Rule); ok {
		p.rules([]Rule{n}, 0)
	}
	return strings.TrimSuffix(p.String(), "\n")
}

type printer struct {
	bytes.Buffer
	level int
}

func (p *printer) indent() {
	for range p.level {
		p.WriteString("  ")
	}
}

// rules prints a list. line is the line where what comes before it ends, 0 when
// nothing does.
func (p *printer) rules(rules []Rule, line int) {
	for i, r := range rules {
		if c, ok := r.(*Comment); ok && c.Trailing && p.Len() > 0 {
			p.Truncate(p.Len() - 1)
			p.WriteString(" " + c.Text + "\n")
			line = c.Pos.End.Line
			continue
		}
		if at := r.Span(); i > 0 && line > 0 && at.Start.Line > line+1 {
			p.WriteByte('\n')
		}
		p.indent()
		p.rule(r)
		p.WriteByte('\n')
		line = r.Span().End.Line
	}
}

func (p *printer) word(w Word) {
	if w.Raw != "" {
		p.WriteString(w.Raw)
		return
	}
	p.WriteString(quoteWord(w.Value))
}

// valueWord prints a word where # starts a comment if a line end follows.
func (p *printer) valueWord(w Word) {
	if strings.HasPrefix(w.Raw, "#") {
		w.Raw = ""
	}
	p.word(w)
}

func (p *printer) words(ws []Word, sep string) {
	for i, w := range ws {
		if i > 0 {
			p.WriteString(sep)
		}
		p.word(w)
	}
}

func (p *printer) list(ws []Word) {
	p.WriteByte('(')
	p.words(ws, ", ")
	p.WriteByte(')')
}

func (p *printer) path(angle bool, w Word) {
	if w.Raw != "" || !angle {
		p.word(w)
		return
	}
	p.WriteString("<" + w.Value + ">")
}

func (p *printer) variable(sigil byte, name string, brace bool) {
	p.WriteByte(sigil)
	if brace {
		p.WriteString("{" + name + "}")
	} else {
		p.WriteString(name)
	}
}

// body prints a braced list, the opening brace included.
func (p *printer) body(rules []Rule, open int) {
	p.WriteString("{\n")
	p.level++
	p.rules(rules, open)
	p.level--
	p.indent()
	p.WriteByte('}')
}

func (p *printer) prefix(x Prefix) {
	if x.HasPriority || x.Priority != 0 {
		p.WriteString("priority=" + strconv.Itoa(x.Priority) + " ")
	}
	if x.Audit {
		p.WriteString("audit ")
	}
	for _, s := range []string{x.Mode.String(), x.Owner.String()} {
		if s != "" {
			p.WriteString(s + " ")
		}
	}
}

func (p *printer) conds(cs []Cond, sep string) {
	for i, c := range cs {
		if i > 0 {
			p.WriteString(sep)
		}
		p.word(c.Name)
		if c.Op == CondNone {
			continue
		}
		p.WriteString(c.Op.String())
		if c.Paren || len(c.Values) != 1 {
			p.list(c.Values)
		} else {
			p.word(c.Values[0])
		}
	}
}

func (p *printer) rule(r Rule) {
	switch n := r.(type) {
	case *Comment:
		p.WriteString(n.Text)
	case *Include:
		if n.Hash {
			p.WriteByte('#')
		}
		p.WriteString("include ")
		if n.IfExists {
			p.WriteString("if exists ")
		}
		p.path(n.Angle, n.Path)
	case *ABI:
		p.WriteString("abi ")
		p.path(n.Angle, n.Path)
		p.WriteByte(',')
	case *Alias:
		if n.Rewrite {
			p.WriteString("rewrite ")
		} else {
			p.WriteString("alias ")
		}
		p.word(n.From)
		p.WriteString(" -> ")
		p.word(n.To)
		p.WriteByte(',')
	case *VarAssign:
		p.variable('@', n.Name, n.Brace)
		p.WriteString(" " + n.Op.String())
		for _, v := range n.Values {
			p.WriteByte(' ')
			p.valueWord(v)
		}
	case *BoolAssign:
		p.variable('$', n.Name, n.Brace)
		p.WriteString(" " + n.Op.String() + " ")
		p.expr(n.Value)
	case *Profile:
		p.profile(n)
	case *If:
		p.cond(n)
	case *Block:
		p.prefix(n.Prefix)
		p.body(n.Rules, openLine(n.Prefix, n.Pos.Start.Line))
	default:
		p.simple(r)
		p.WriteByte(',')
	}
}

// openLine is the line of an opening brace as far as blank lines are concerned.
func openLine(x Prefix, line int) int {
	if x.Pos.IsValid() {
		return x.Pos.End.Line
	}
	return line
}

// simple prints a rule that ends with a comma, without it.
func (p *printer) simple(r Rule) {
	switch n := r.(type) {
	case *FileRule:
		p.file(n)
	case *LinkRule:
		p.prefix(n.Prefix)
		p.WriteString("link ")
		if n.Subset {
			p.WriteString("subset ")
		}
		p.word(n.Path)
		p.WriteString(" -> ")
		p.word(n.Target)
	case *CapabilityRule:
		p.prefix(n.Prefix)
		p.WriteString("capability")
		for _, c := range n.Caps {
			p.WriteByte(' ')
			p.word(c)
		}
	case *CondRule:
		p.condRule(n)
	case *MountRule:
		p.mount(n)
	case *AllRule:
		p.prefix(n.Prefix)
		p.WriteString("all")
	case *ChangeProfileRule:
		p.prefix(n.Prefix)
		p.WriteString("change_profile")
		if n.ExecMode != ExecModeUnspecified {
			p.WriteString(" " + n.ExecMode.String())
		}
		if !n.Exec.IsZero() {
			p.WriteByte(' ')
			p.word(n.Exec)
		}
		p.arrow(n.Target)
	case *RlimitRule:
		p.WriteString("set rlimit ")
		p.word(n.Resource)
		p.WriteString(" <= ")
		p.word(n.Value)
		if !n.Unit.IsZero() {
			p.WriteByte(' ')
			p.word(n.Unit)
		}
	}
}

func (p *printer) arrow(w Word) {
	if !w.IsZero() {
		p.WriteString(" -> ")
		p.word(w)
	}
}

func (p *printer) profile(n *Profile) {
	switch n.Kind {
	case KindProfile:
		p.WriteString("profile ")
	case KindHat:
		p.WriteString("hat ")
	case KindCaret:
		p.WriteByte('^')
	}
	p.word(n.Name)
	if !n.Attachment.IsZero() {
		p.WriteByte(' ')
		p.word(n.Attachment)
	}
	if n.HasXattrs {
		p.WriteByte(' ')
		p.word(n.CondName)
		p.WriteString("=(")
		p.groupConds(n.Xattrs)
		p.WriteByte(')')
	}
	for _, ids := range n.Identities {
		p.WriteString(" + identities=")
		p.list(ids)
	}
	if n.HasFlags {
		p.WriteByte(' ')
		if n.FlagsWord {
			p.WriteString("flags=")
		}
		p.list(n.Flags)
	}
	p.WriteByte(' ')
	p.body(n.Rules, n.Pos.Start.Line)
}

// groupConds prints the conditions in a peer or xattrs group, where values
// stand without parentheses.
func (p *printer) groupConds(cs []Cond) {
	for i, c := range cs {
		if i > 0 {
			p.WriteString(", ")
		}
		p.word(c.Name)
		if c.Op != CondNone && len(c.Values) > 0 {
			p.WriteString(c.Op.String())
			p.word(c.Values[0])
		}
	}
}

func (p *printer) cond(n *If) {
	p.WriteString("if ")
	p.expr(n.Cond)
	p.WriteByte(' ')
	p.body(n.Then.Rules, n.Then.Pos.Start.Line)
	switch e := n.Else.(type) {
	case *If:
		p.WriteString(" else ")
		p.cond(e)
	case *Block:
		p.WriteString(" else ")
		p.body(e.Rules, e.Pos.Start.Line)
	}
}

func (p *printer) expr(e Expr) {
	switch e := e.(type) {
	case *BoolVar:
		p.variable('$', e.Name, e.Brace)
	case *Defined:
		p.WriteString("defined ")
		sigil := byte('@')
		if e.Bool {
			sigil = '$'
		}
		p.variable(sigil, e.Name, e.Brace)
	case *Literal:
		p.valueWord(e.Operand.Word)
	case *Compare:
		p.valueWord(e.Left.Word)
		p.WriteString(" " + e.Op + " ")
		p.valueWord(e.Right.Word)
	case *Not:
		p.WriteString("not ")
		p.expr(e.X)
	case *And:
		p.expr(e.X)
		p.WriteString(" and ")
		p.expr(e.Y)
	case *Or:
		p.expr(e.X)
		p.WriteString(" or ")
		p.expr(e.Y)
	case *Paren:
		// A variable takes a parenthesis right behind it along.
		p.WriteString("( ")
		p.expr(e.X)
		p.WriteString(" )")
	}
}

func (p *printer) file(n *FileRule) {
	p.prefix(n.Prefix)
	if n.File {
		p.WriteString("file")
		if n.Path.IsZero() {
			return
		}
		p.WriteByte(' ')
	}
	if n.ExecMode != ExecModeUnspecified {
		p.WriteString(n.ExecMode.String() + " ")
	}
	if n.PermsFirst {
		p.word(n.Perms)
		p.WriteByte(' ')
		if n.Subset {
			p.WriteString("subset ")
		}
		p.word(n.Path)
	} else {
		p.word(n.Path)
		p.WriteByte(' ')
		p.word(n.Perms)
	}
	p.arrow(n.Target)
}

func (p *printer) condRule(n *CondRule) {
	p.prefix(n.Prefix)
	p.WriteString(className(n.Class))
	switch {
	case n.ParenPerms || len(n.Perms) > 1:
		p.WriteByte(' ')
		p.list(n.Perms)
	case len(n.Perms) == 1:
		p.WriteByte(' ')
		p.word(n.Perms[0])
	}
	args := func() {
		for _, a := range n.Args {
			p.WriteByte(' ')
			p.word(a)
		}
	}
	if n.Class != ClassMqueue {
		args()
	}
	if len(n.Conds) > 0 {
		p.WriteByte(' ')
		p.conds(n.Conds, " ")
	}
	if n.Class == ClassMqueue {
		args()
	}
	if n.HasGroup {
		p.WriteByte(' ')
		p.word(n.GroupName)
		p.WriteString("=(")
		p.groupConds(n.Group)
		p.WriteByte(')')
	}
}

func (p *printer) mount(n *MountRule) {
	p.prefix(n.Prefix)
	if n.Unmount {
		p.WriteString("unmount")
	} else {
		p.WriteString(n.Kind.String())
	}
	if len(n.Conds) > 0 {
		p.WriteByte(' ')
		p.conds(n.Conds, " ")
	}
	first, second := n.Target, Word{}
	switch n.Kind {
	case Mount:
		first, second = n.Source, n.Target
	case PivotRoot:
		second = n.Profile
	}
	if !first.IsZero() {
		p.WriteByte(' ')
		p.word(first)
	}
	if n.HasArrow || !second.IsZero() {
		p.WriteString(" -> ")
		if len(n.DstConds) > 0 {
			p.conds(n.DstConds, " ")
			p.WriteByte(' ')
		}
		p.word(second)
	}
}
