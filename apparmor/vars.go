// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Bounds of variable expansion: what a hostile text may make of a few lines.
const (
	maxVarValues = 1 << 14
	maxExpanded  = 1 << 20 // bytes of one variable's values, or of one glob
	maxAllText   = 1 << 26 // bytes of them all
)

var errAllText = errors.New("the variables of this policy expand to too much text")

// variableSet is the symbol table. Set and boolean variables share one name
// space.
//
// Source: parser/symtab.cc, parser/variable.cc.
type variableSet struct {
	m     map[string]*variableValue
	spent int // bytes that expansions have made
}

// spend counts bytes against what one policy may make.
func (vs *variableSet) spend(n int) error {
	if vs.spent += n; vs.spent > maxAllText {
		return errAllText
	}
	return nil
}

type variableValue struct {
	boolean   bool // a boolean variable
	value     bool
	values    map[string]bool
	expanded  []string // sorted; nil until expanded
	expanding bool
}

func newSetVariable(values ...string) *variableValue {
	v := &variableValue{values: make(map[string]bool, len(values))}
	for _, s := range values {
		v.values[s] = true
	}
	return v
}

// splitVariable finds the first variable in a value: what stands before it, its
// name, what stands after. The scan has the reference parser's habits: inside
// another brace the innermost @{ counts.
func splitVariable(s string) (prefix, name, suffix string, ok bool) {
	escaped, start := false, -1
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			escaped = !escaped
		case '@':
			if escaped {
				escaped = false
			} else if i+1 < len(s) && s[i+1] == '{' {
				start = i
				i += 2
			}
		case '}':
			if escaped {
				escaped = false
			} else if start >= 0 {
				return s[:start], s[start : i+1], s[i+1:], true
			}
		default:
			escaped = false
		}
	}
	return "", "", "", false
}

var (
	errNotVariable = errors.New("no variable")
	errAlternation = errors.New("alternation spelled as a variable")
)

// variableName checks "@{name}", "@name", "$name" or "${name}" and gives the
// name.
func variableName(v string) (string, error) {
	if v == "" || v[0] != '@' && v[0] != '$' {
		return "", errNotVariable
	}
	n := v[1:]
	if strings.HasPrefix(n, "{") {
		if !strings.HasSuffix(n, "}") || len(n) < 2 {
			return "", errNotVariable
		}
		n = n[1 : len(n)-1]
	}
	for i := 0; i < len(n); i++ {
		switch c := n[i]; {
		case i == 0 && !isAlpha(c):
			return "", fmt.Errorf("the name of variable %s must start with a letter", v)
		case c == ',' && i > 0:
			return "", errAlternation
		case !isAlnum(c) && c != '_':
			return "", fmt.Errorf("variable %s has a character in its name that is not allowed", v)
		}
	}
	return n, nil
}

// expand gives the values of a set variable with the variables in them
// replaced, sorted. The first expansion holds: values added later do not count.
func (vs *variableSet) expand(name string) ([]string, error) {
	v := vs.m[name]
	if v == nil {
		return nil, fmt.Errorf("variable @{%s} is not declared", name)
	}
	if v.boolean {
		return nil, fmt.Errorf("$%s is a boolean variable, used where a set variable belongs", name)
	}
	if v.expanded != nil {
		return v.expanded, nil
	}
	if v.expanding {
		return nil, fmt.Errorf("variable @{%s} refers to itself", name)
	}
	v.expanding = true
	defer func() { v.expanding = false }()
	work := slices.Sorted(maps.Keys(v.values))
	done := map[string]bool{}
	size, counted := 0, 0
	for i := 0; i < len(work); i++ {
		prefix, ref, suffix, ok := splitVariable(work[i])
		if !ok {
			done[work[i]] = true
			continue
		}
		rn, err := variableName(ref)
		if err != nil {
			if errors.Is(err, errAlternation) {
				err = fmt.Errorf("variable %s has a character in its name that is not allowed", ref)
			}
			return nil, err
		}
		if r := vs.m[rn]; r != nil && r.expanding {
			return nil, fmt.Errorf("variable @{%s} refers to itself through @{%s}", rn, name)
		}
		values, err := vs.expand(rn)
		if err != nil {
			return nil, err
		}
		for _, s := range values {
			work = append(work, prefix+s+suffix)
			size += len(prefix) + len(s) + len(suffix)
		}
		if len(work) > maxVarValues || size > maxExpanded {
			return nil, fmt.Errorf("variable @{%s} expands to too many values", name)
		}
		if err := vs.spend(size - counted); err != nil {
			return nil, err
		}
		counted = size
	}
	v.expanded = slices.Sorted(maps.Keys(done))
	return v.expanded, nil
}

// inGlob replaces the variables in a glob, each by the alternation of its
// values. Slashes that a value brings along next to one in the text go away.
func (vs *variableSet) inGlob(s string) (string, error) {
	var out strings.Builder
	for {
		prefix, ref, suffix, ok := splitVariable(s)
		if !ok {
			out.WriteString(s)
			return out.String(), nil
		}
		name, err := variableName(ref)
		if errors.Is(err, errAlternation) {
			out.WriteString(s)
			return out.String(), nil
		}
		if err != nil {
			return "", err
		}
		values, err := vs.expand(name)
		if err != nil {
			return "", err
		}
		// AppArmor 3 and 4 trim every alternation; 6 leaves one alone that only
		// slashes stand before, where the path then never matches.
		if err := vs.spend(0); err != nil {
			return "", err
		}
		trimLeft := strings.HasSuffix(prefix, "/") && (len(values) > 1 || strings.Trim(prefix, "/") != "")
		trimRight := strings.HasPrefix(suffix, "/")
		var b strings.Builder
		if len(values) > 1 {
			b.WriteByte('{')
		}
		for i, v := range values {
			if i > 0 {
				b.WriteByte(',')
			}
			if trimLeft {
				v = strings.TrimLeft(v, "/")
			}
			if trimRight {
				v = strings.TrimRight(v, "/")
			}
			b.WriteString(v)
		}
		if len(values) > 1 {
			b.WriteByte('}')
		}
		out.WriteString(prefix)
		s = b.String() + suffix
		if err := vs.spend(len(s)); err != nil {
			return "", err
		}
		if out.Len()+len(s) > maxExpanded {
			return "", fmt.Errorf("%.40s… grows too large when its variables are replaced", prefix+ref)
		}
	}
}

// eval evaluates a condition. Errors are about names and values that do not
// fit.
func (vs *variableSet) eval(e Expr, fail func(n Node, err error)) bool {
	switch e := e.(type) {
	case *Paren:
		return vs.eval(e.X, fail)
	case *Not:
		return !vs.eval(e.X, fail)
	case *And:
		x, y := vs.eval(e.X, fail), vs.eval(e.Y, fail)
		return x && y
	case *Or:
		x, y := vs.eval(e.X, fail), vs.eval(e.Y, fail)
		return x || y
	case *BoolVar:
		v := vs.m[e.Name]
		switch {
		case v == nil:
			fail(e, fmt.Errorf("boolean variable $%s is not declared", e.Name))
			return false
		case !v.boolean:
			fail(e, fmt.Errorf("@{%s} is a set variable, used where a boolean one belongs", e.Name))
			return false
		}
		return v.value
	case *Defined:
		v := vs.m[e.Name]
		return v != nil && v.boolean == e.Bool
	case *Literal:
		switch {
		case strings.EqualFold(e.Operand.Word.Value, "true"):
			return true
		case strings.EqualFold(e.Operand.Word.Value, "false"):
			return false
		}
		fail(e, fmt.Errorf("'%s' is neither true nor false", e.Operand.Word.Value))
	case *Compare:
		return vs.compare(e, fail)
	}
	return false
}

func (vs *variableSet) operandSet(o Operand) ([]string, error) {
	name, err := variableName(o.Word.Value)
	if err != nil {
		return []string{o.Word.Value}, nil
	}
	return vs.expand(name)
}

func (vs *variableSet) compare(e *Compare, fail func(n Node, err error)) bool {
	l, err := vs.operandSet(e.Left)
	if err != nil {
		fail(e, err)
		return false
	}
	r, err := vs.operandSet(e.Right)
	if err != nil {
		fail(e, err)
		return false
	}
	switch e.Op {
	case "==":
		return slices.Equal(l, r)
	case "!=":
		return !slices.Equal(l, r)
	case "in":
		for _, x := range l {
			if _, ok := slices.BinarySearch(r, x); !ok {
				return false
			}
		}
		return true
	}
	ln, lok, err := setNumber(l)
	if err == nil {
		var rn int64
		var rok bool
		if rn, rok, err = setNumber(r); err == nil {
			switch {
			case lok && rok:
				return order(e.Op, cmp.Compare(ln, rn))
			case !lok && !rok:
				return order(e.Op, slices.Compare(l, r))
			}
			err = errors.New("a number can only be compared with a number")
		}
	}
	fail(e, err)
	return false
}

func order(op string, c int) bool {
	switch op {
	case ">":
		return c > 0
	case ">=":
		return c >= 0
	case "<":
		return c < 0
	default:
		return c <= 0
	}
}

// setNumber reads a set of one element as a number: decimal, 0x or 0.
func setNumber(set []string) (n int64, ok bool, err error) {
	if len(set) != 1 || set[0] == "" {
		return 0, false, nil
	}
	s := strings.TrimLeft(set[0], " \t\n\v\f\r")
	body, base := strings.TrimLeft(s, "+-"), 10
	switch {
	case len(body) > 2 && (body[:2] == "0x" || body[:2] == "0X"):
		base = 16
	case len(body) > 1 && body[0] == '0':
		base = 8
	}
	sign := s[:len(s)-len(body)]
	if len(sign) > 1 || strings.Contains(body, "_") {
		return 0, false, nil
	}
	if base == 16 {
		body = body[2:]
	}
	n, err = strconv.ParseInt(sign+body, base, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, false, fmt.Errorf("%s is too large to compare", set[0])
	case err != nil:
		return 0, false, nil
	}
	return n, true, nil
}
