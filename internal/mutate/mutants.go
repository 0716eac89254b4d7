// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"strconv"
	"strings"
)

// mutant is one small change of the program. All mutants of a package are built
// into one binary, each behind a switch; at most one is on in a run.
type mutant struct {
	id     int
	file   string // base name
	line   int
	fn     string // the function that it is in
	op     string
	change string // old => new
	nth    int    // among the same changes of the same function
}

// key names a mutant in the list of equivalents, whatever lines move.
func (m *mutant) key(pkg string) string {
	k := pkg + "/" + m.file + " " + m.fn + ": " + strings.TrimSpace(m.change) // what is removed has nothing behind the arrow
	if m.nth > 0 {
		k += " #" + strconv.Itoa(m.nth+1)
	}
	return k
}

// site is a range of the source text that is written anew with the mutants that
// start there. rendered gives a range with the sites inside it written anew too,
// plain as it stands.
type site struct {
	pos, end token.Pos
	build    func(rendered, plain func(from, to token.Pos) string) string
	mutants  []*mutant
}

// source is a file that is being mutated.
type source struct {
	name  string
	text  []byte
	base  token.Pos
	ast   *ast.File
	pkg   *types.Package
	info  *types.Info
	fset  *token.FileSet
	sites []*site
	next  func(*mutant) int // gives the ID
	fn    string
	named map[string]bool // names of imported packages
}

func (s *source) at(n ast.Node) string { return s.cut(n.Pos(), n.End()) }

func (s *source) cut(from, to token.Pos) string {
	return string(s.text[from-s.base : to-s.base])
}

// add notes a site; each change is an operator's name with the old and the new text.
func (s *source) add(pos, end token.Pos, build func(ids []int, rendered, plain func(from, to token.Pos) string) string, changes ...[3]string) {
	st := &site{pos: pos, end: end}
	var ids []int
	for _, c := range changes {
		m := &mutant{file: s.name, line: s.fset.Position(pos).Line, fn: s.fn, op: c[0], change: short(c[1]) + " => " + short(c[2])}
		m.id = s.next(m)
		ids = append(ids, m.id)
		st.mutants = append(st.mutants, m)
	}
	st.build = func(rendered, plain func(from, to token.Pos) string) string { return build(ids, rendered, plain) }
	s.sites = append(s.sites, st)
}

// short makes one line of some text, to be read and to be found in the list of equivalents.
func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 100 {
		s = s[:97] + "..."
	}
	return s
}

// render writes the range anew with the sites that lie in it, but for skip.
func (s *source) render(from, to token.Pos, skip *site, dropped map[int]bool) string {
	var out strings.Builder
	at := from
	for _, st := range s.within(from, to, skip, dropped) {
		out.WriteString(s.cut(at, st.pos))
		out.WriteString(st.build(func(a, b token.Pos) string { return s.render(a, b, st, dropped) }, s.cut))
		at = st.end
	}
	out.WriteString(s.cut(at, to))
	return out.String()
}

// within are the outermost sites of a range.
func (s *source) within(from, to token.Pos, skip *site, dropped map[int]bool) []*site {
	var out []*site
	end := from
	i, _ := slices.BinarySearchFunc(s.sites, from, func(st *site, p token.Pos) int { return int(st.pos - p) })
	for ; i < len(s.sites) && s.sites[i].pos < to; i++ {
		st := s.sites[i]
		if st == skip || st.pos < end || st.end > to {
			continue
		}
		if slices.ContainsFunc(st.mutants, func(m *mutant) bool { return dropped[m.id] }) {
			continue
		}
		out = append(out, st)
		end = st.end
	}
	return out
}

func (s *source) sort() {
	slices.SortStableFunc(s.sites, func(a, b *site) int {
		if a.pos != b.pos {
			return int(a.pos - b.pos)
		}
		return int(b.end - a.end)
	})
}

// find looks for what can be mutated in the functions and variables of a file.
func (s *source) find() {
	for _, d := range s.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Body == nil || d.Name.Name == "String" || d.Name.Name == "GoString" {
				continue
			}
			s.fn = d.Name.Name
			if d.Recv != nil && len(d.Recv.List) == 1 {
				t := d.Recv.List[0].Type
				if star, ok := t.(*ast.StarExpr); ok {
					t = star.X
				}
				if i, ok := t.(*ast.IndexExpr); ok {
					t = i.X
				}
				s.fn = s.at(t) + "." + s.fn
			}
			s.walk(d.Body)
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				s.fn = v.Names[0].Name
				for _, x := range v.Values {
					s.walk(x)
				}
			}
		}
	}
	s.sort()
}

func (s *source) walk(root ast.Node) {
	var stack []ast.Node
	ast.Inspect(root, func(n ast.Node) bool {
		if n == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		var parent ast.Node
		if len(stack) > 0 {
			parent = stack[len(stack)-1]
		}
		if s.visit(n, parent) {
			stack = append(stack, n)
			return true
		}
		return false
	})
}

// visit adds the mutants of a node and tells whether to look inside.
func (s *source) visit(n, parent ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok == token.VAR
	case *ast.ArrayType, *ast.FuncType, *ast.StructType, *ast.InterfaceType:
		return false
	case *ast.BlockStmt:
		s.list(n.List)
	case *ast.CaseClause:
		s.list(n.Body)
	case *ast.CommClause:
		s.list(n.Body)
	case *ast.IfStmt:
		s.condition(n.Cond)
	case *ast.KeyValueExpr:
		if lit, ok := parent.(*ast.CompositeLit); ok {
			if _, isMap := types.Unalias(s.info.TypeOf(lit)).Underlying().(*types.Map); !isMap {
				s.walk(n.Value)
				return false
			}
		}
	case ast.Expr:
		return s.expr(n)
	}
	return true
}

func (s *source) basic(t types.Type) *types.Basic {
	if t == nil {
		return nil
	}
	b, _ := t.Underlying().(*types.Basic)
	return b
}

// typeName is how the file can spell a type; "" when it cannot.
func (s *source) typeName(t types.Type) string {
	ok := true
	name := types.TypeString(t, func(p *types.Package) string {
		if p == s.pkg {
			return ""
		}
		ok = ok && s.named[p.Name()]
		return p.Name()
	})
	if !ok {
		return ""
	}
	return name
}

// pointless are types whose values tests cannot see by one.
var pointless = []string{"time.Duration", "io/fs.FileMode", "os.FileMode"}

func (s *source) expr(e ast.Expr) bool {
	tv, known := s.info.Types[e]
	if known && tv.IsType() {
		return false
	}
	if id, ok := e.(*ast.Ident); ok && (id.Name == "true" || id.Name == "false") && s.info.Uses[id] == types.Universe.Lookup(id.Name) {
		other := map[string]string{"true": "false", "false": "true"}[id.Name]
		s.add(e.Pos(), e.End(), func(ids []int, _, plain func(a, b token.Pos) string) string {
			return fmt.Sprintf("(zzOn(%d) != %s)", ids[0], id.Name)
		}, [3]string{"boolean", id.Name, other})
		return false
	}
	if known && tv.Value != nil {
		s.constant(e, tv)
		return false
	}
	switch e := e.(type) {
	case *ast.BinaryExpr:
		s.binary(e)
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			s.add(e.Pos(), e.End(), func(ids []int, rendered, _ func(a, b token.Pos) string) string {
				return fmt.Sprintf("(zzOn(%d) != !%s)", ids[0], rendered(e.X.Pos(), e.X.End()))
			}, [3]string{"negation", s.at(e), s.at(e.X)})
		}
	case *ast.CallExpr:
		// Capacities and sizes of buffers change nothing that can be seen.
		if id, ok := e.Fun.(*ast.Ident); ok && id.Name == "make" && len(e.Args) > 2 {
			for _, a := range e.Args[1:2] {
				s.exprTree(a)
			}
			return false
		}
	}
	return true
}

func (s *source) exprTree(e ast.Expr) {
	if s.expr(e) {
		s.children(e)
	}
}

func (s *source) children(e ast.Node) {
	ast.Inspect(e, func(n ast.Node) bool {
		if n == e {
			return true
		}
		if n == nil {
			return false
		}
		if s.visit(n, e) {
			s.children(n)
		}
		return false
	})
}

// constant changes a number by one: a literal, or an expression that has one.
func (s *source) constant(e ast.Expr, tv types.TypeAndValue) {
	b := s.basic(tv.Type)
	if b == nil || b.Info()&types.IsInteger == 0 || b.Info()&types.IsUntyped != 0 || tv.Value.Kind() != constant.Int {
		return
	}
	literal := false
	ast.Inspect(e, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.INT {
			literal = true
		}
		return true
	})
	if !literal || slices.Contains(pointless, types.TypeString(tv.Type, nil)) {
		return
	}
	name := s.typeName(tv.Type)
	if name == "" {
		return
	}
	old := s.at(e)
	s.add(e.Pos(), e.End(), func(ids []int, _, _ func(a, b token.Pos) string) string {
		return fmt.Sprintf("zzPick[%s](%d, %s, %s+1)", name, ids[0], old, old)
	}, [3]string{"constant", old, old + "+1"})
}

var (
	boundary = map[token.Token]token.Token{token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR}
	opposite = map[token.Token]token.Token{
		token.LSS: token.GEQ, token.GEQ: token.LSS, token.GTR: token.LEQ, token.LEQ: token.GTR, token.EQL: token.NEQ, token.NEQ: token.EQL,
		token.LAND: token.LOR, token.LOR: token.LAND,
	}
	arithmetic = map[token.Token][2]string{
		token.ADD: {"zzAdd", "-"}, token.SUB: {"zzSub", "+"}, token.MUL: {"zzMul", "+"}, token.QUO: {"zzQuo", "*"}, token.REM: {"zzRem", "*"},
		token.AND: {"zzAnd", "|"}, token.OR: {"zzOr", "&"}, token.XOR: {"zzXor", "|"}, token.AND_NOT: {"zzAndNot", "&"},
		token.SHL: {"zzShl", ">>"}, token.SHR: {"zzShr", "<<"},
	}
	assignment = map[token.Token]string{
		token.ADD_ASSIGN: "-=", token.SUB_ASSIGN: "+=", token.MUL_ASSIGN: "+=", token.OR_ASSIGN: "&=", token.AND_ASSIGN: "|=",
		token.XOR_ASSIGN: "|=", token.AND_NOT_ASSIGN: "&=", token.SHL_ASSIGN: ">>=", token.SHR_ASSIGN: "<<=",
	}
)

func (s *source) binary(e *ast.BinaryExpr) {
	with := func(op string) string { return s.at(e.X) + " " + op + " " + s.at(e.Y) }
	old := with(e.Op.String())
	if not, ok := opposite[e.Op]; ok {
		ops := []token.Token{not}
		changes := [][3]string{{"condition", old, with(not.String())}}
		if b, ok := boundary[e.Op]; ok {
			ops = append(ops, b)
			changes = append(changes, [3]string{"boundary", old, with(b.String())})
		}
		s.add(e.Pos(), e.End(), func(ids []int, rendered, plain func(a, b token.Pos) string) string {
			var out strings.Builder
			out.WriteString("(")
			var none []string
			for i, op := range ops {
				fmt.Fprintf(&out, "zzOn(%d) && (%s %s %s) || ", ids[i], plain(e.X.Pos(), e.X.End()), op, plain(e.Y.Pos(), e.Y.End()))
				none = append(none, fmt.Sprintf("zzOff(%d)", ids[i]))
			}
			fmt.Fprintf(&out, "%s && (%s %s %s))", strings.Join(none, " && "), rendered(e.X.Pos(), e.X.End()), e.Op, rendered(e.Y.Pos(), e.Y.End()))
			return out.String()
		}, changes...)
		return
	}
	how, ok := arithmetic[e.Op]
	b := s.basic(s.info.TypeOf(e))
	if !ok || b == nil || b.Info()&types.IsNumeric == 0 || b.Info()&(types.IsUntyped|types.IsComplex) != 0 {
		return
	}
	if b.Info()&types.IsInteger == 0 && e.Op != token.ADD && e.Op != token.SUB && e.Op != token.MUL && e.Op != token.QUO {
		return
	}
	name := s.typeName(s.info.TypeOf(e))
	if name == "" {
		return
	}
	shift := e.Op == token.SHL || e.Op == token.SHR
	s.add(e.Pos(), e.End(), func(ids []int, rendered, _ func(a, b token.Pos) string) string {
		x, y := rendered(e.X.Pos(), e.X.End()), rendered(e.Y.Pos(), e.Y.End())
		if shift {
			return fmt.Sprintf("%s(%d, %s(%s), %s)", how[0], ids[0], "("+name+")", x, y)
		}
		return fmt.Sprintf("%s[%s](%d, %s, %s)", how[0], name, ids[0], x, y)
	}, [3]string{"arithmetic", old, with(how[1])})
}

// condition negates what is no comparison; those are mutated by themselves.
func (s *source) condition(e ast.Expr) {
	for {
		p, ok := e.(*ast.ParenExpr)
		if !ok {
			break
		}
		e = p.X
	}
	switch x := e.(type) {
	case *ast.BinaryExpr:
		if x.Op == token.LAND || x.Op == token.LOR {
			s.condition(x.X)
			s.condition(x.Y)
		}
	case *ast.UnaryExpr: // visited as such
	case *ast.Ident, *ast.CallExpr, *ast.SelectorExpr, *ast.IndexExpr:
		if id, ok := e.(*ast.Ident); ok && (id.Name == "true" || id.Name == "false") {
			return
		}
		s.add(e.Pos(), e.End(), func(ids []int, rendered, _ func(a, b token.Pos) string) string {
			return fmt.Sprintf("(zzOn(%d) != %s)", ids[0], rendered(e.Pos(), e.End()))
		}, [3]string{"condition", s.at(e), "!" + s.at(e)})
	}
}

// unseen are calls whose absence no test is to see.
var unseen = []string{"Lock", "Unlock", "RLock", "RUnlock", "Close", "LockOSThread", "UnlockOSThread", "Grow", "panic", "KeepAlive"}

func (s *source) list(stmts []ast.Stmt) {
	for _, st := range stmts {
		switch st := st.(type) {
		case *ast.ExprStmt:
			call, ok := st.X.(*ast.CallExpr)
			if !ok || slices.Contains(unseen, callee(call)) {
				continue
			}
			s.remove(st)
		case *ast.DeferStmt:
			if !slices.Contains(unseen, callee(st.Call)) {
				s.remove(st)
			}
		case *ast.GoStmt, *ast.SendStmt, *ast.IncDecStmt:
			s.remove(st)
		case *ast.AssignStmt:
			if st.Tok == token.DEFINE {
				continue
			}
			if id, ok := st.Lhs[0].(*ast.Ident); ok && id.Name == "_" && len(st.Lhs) == 1 {
				continue
			}
			s.remove(st)
		case *ast.BranchStmt:
			s.branch(st)
		case *ast.ReturnStmt:
			s.result(st)
		}
	}
}

func callee(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

func (s *source) remove(st ast.Stmt) {
	changes := [][3]string{{"removal", s.at(st), ""}}
	other := ""
	if a, ok := st.(*ast.AssignStmt); ok && len(a.Lhs) == 1 {
		if op := assignment[a.Tok]; op != "" {
			if b := s.basic(s.info.TypeOf(a.Lhs[0])); b != nil && b.Info()&types.IsInteger != 0 {
				other = s.at(a.Lhs[0]) + " " + op + " " + s.at(a.Rhs[0])
				changes = append(changes, [3]string{"arithmetic", s.at(st), other})
			}
		}
	}
	s.add(st.Pos(), st.End(), func(ids []int, rendered, _ func(a, b token.Pos) string) string {
		if other != "" {
			return fmt.Sprintf("if zzOn(%d) { } else if zzOn(%d) { %s } else { %s }", ids[0], ids[1], other, rendered(st.Pos(), st.End()))
		}
		return fmt.Sprintf("if zzOff(%d) { %s }", ids[0], rendered(st.Pos(), st.End()))
	}, changes...)
}

func (s *source) branch(st *ast.BranchStmt) {
	other := map[token.Token]string{token.BREAK: "continue", token.CONTINUE: "break"}[st.Tok]
	if other == "" {
		return
	}
	if st.Label != nil {
		other += " " + st.Label.Name
	}
	s.add(st.Pos(), st.End(), func(ids []int, _, plain func(a, b token.Pos) string) string {
		return fmt.Sprintf("{ if zzOn(%d) { %s }; %s }", ids[0], other, plain(st.Pos(), st.End()))
	}, [3]string{"branch", s.at(st), other})
}

var errorType = types.Universe.Lookup("error").Type()

// result forgets an error, or gives back nothing.
func (s *source) result(st *ast.ReturnStmt) {
	if len(st.Results) == 0 {
		return
	}
	last := st.Results[len(st.Results)-1]
	t := s.info.TypeOf(last)
	if _, tuple := t.(*types.Tuple); tuple || t == nil {
		return
	}
	zero := ""
	tv := s.info.Types[last]
	switch u := t.Underlying().(type) {
	case *types.Interface:
		if types.Implements(t, errorType.Underlying().(*types.Interface)) && !tv.IsNil() {
			zero = "nil"
		}
	case *types.Basic:
		switch {
		case tv.Value != nil:
		case u.Info()&types.IsString != 0 && len(st.Results) == 1:
			zero = `""`
		case u.Info()&types.IsNumeric != 0 && len(st.Results) == 1:
			zero = "0"
		case u.Info()&types.IsBoolean != 0:
			if _, compared := last.(*ast.BinaryExpr); compared {
				return
			}
			if _, not := last.(*ast.UnaryExpr); not {
				return
			}
			s.add(last.Pos(), last.End(), func(ids []int, rendered, _ func(a, b token.Pos) string) string {
				return fmt.Sprintf("(zzOn(%d) != %s)", ids[0], rendered(last.Pos(), last.End()))
			}, [3]string{"result", s.at(last), "!" + s.at(last)})
			return
		}
	case *types.Pointer, *types.Slice, *types.Map:
		// Pointers to errors of our own are results like others.
		if len(st.Results) == 1 && !tv.IsNil() {
			zero = "nil"
		}
	}
	if zero == "" {
		return
	}
	var front bytes.Buffer
	for _, r := range st.Results[:len(st.Results)-1] {
		front.WriteString(s.at(r) + ", ")
	}
	s.add(st.Pos(), st.End(), func(ids []int, rendered, _ func(a, b token.Pos) string) string {
		return fmt.Sprintf("{ if zzOn(%d) { return %s%s }; %s }", ids[0], front.String(), zero, rendered(st.Pos(), st.End()))
	}, [3]string{"result", s.at(last), zero})
}
