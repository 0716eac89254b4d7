// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"fmt"
	"slices"
	"strings"
)

// Features is a set of features: what a kernel supports, or what a policy was
// written for (its abi). It is a tree of names whose leaves hold words; paths
// into it are separated by slashes, "network_v8/af_mask". A Features does not
// change once parsed.
//
// The text form is the one of the parser's --features-file and of abi files,
// name {value}, nested.
//
// Source: libraries/libapparmor/src/features.c.
type Features struct {
	root feature
}

type feature struct {
	name  string
	value string
	sub   []feature
}

// maxFeatureDepth bounds the nesting of a feature text; the kernel's has four
// levels.
const maxFeatureDepth = 16

// ParseFeatures reads the text form.
func ParseFeatures(text string) (*Features, error) {
	f := &Features{}
	if _, err := parseFeatures(&f.root, text, 0); err != nil {
		return nil, err
	}
	return f, nil
}

func parseFeatures(into *feature, text string, depth int) (rest string, err error) {
	if depth > maxFeatureDepth {
		return "", fmt.Errorf("apparmor: features: nested deeper than %d", maxFeatureDepth)
	}
	for {
		i := strings.IndexAny(text, "{}#")
		switch {
		case i >= 0 && text[i] == '#':
			_, after, _ := strings.Cut(text[i:], "\n")
			text = text[:i] + after
			continue
		case i < 0 || text[i] == '}':
			if i < 0 {
				i = len(text)
			}
			if word := strings.TrimSpace(text[:i]); word != "" {
				if depth == 0 {
					return "", fmt.Errorf("apparmor: features: %.40q is outside of any group", word)
				}
				into.value = strings.Join(strings.Fields(into.value+" "+word), " ")
			}
			if i == len(text) {
				if depth > 0 {
					return "", fmt.Errorf("apparmor: features: group %q is not closed", into.name)
				}
				return "", nil
			}
			// A closing brace too many ends the text: the kernel-5.4 abi files that
			// AppArmor installs have one.
			return text[i+1:], nil
		}
		words := strings.Fields(text[:i])
		if len(words) == 0 {
			return "", fmt.Errorf("apparmor: features: a group without a name")
		}
		name := words[len(words)-1]
		if len(words) > 1 {
			into.value = strings.Join(append(strings.Fields(into.value), words[:len(words)-1]...), " ")
		}
		sub := feature{name: name}
		if text, err = parseFeatures(&sub, text[i+1:], depth+1); err != nil {
			return "", err
		}
		into.sub = append(into.sub, sub)
	}
}

// NewFeatures makes a set from paths to leaf values, as read from
// /sys/kernel/security/apparmor/features. A path that ends in / makes an empty
// group.
func NewFeatures(leaves map[string]string) *Features {
	paths := make([]string, 0, len(leaves))
	for p := range leaves {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	f := &Features{}
	for _, p := range paths {
		at := &f.root
		for _, name := range strings.Split(strings.Trim(p, "/"), "/") {
			if name == "" {
				continue
			}
			i := slices.IndexFunc(at.sub, func(s feature) bool { return s.name == name })
			if i < 0 {
				at.sub = append(at.sub, feature{name: name})
				i = len(at.sub) - 1
			}
			at = &at.sub[i]
		}
		if !strings.HasSuffix(p, "/") {
			at.value = strings.Join(strings.Fields(leaves[p]), " ")
		}
	}
	return f
}

func (f *Features) find(path string) *feature {
	if f == nil {
		return nil
	}
	at := &f.root
next:
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		for i := range at.sub {
			if at.sub[i].name == name {
				at = &at.sub[i]
				continue next
			}
		}
		// A leaf's words count as names too: "caps/mask/chown".
		if path == "" && slices.Contains(strings.Fields(at.value), name) {
			return &feature{name: name}
		}
		return nil
	}
	return at
}

// Has tells whether the path, or the word at its end, is there.
func (f *Features) Has(path string) bool { return f.find(path) != nil }

// Value is the text of a leaf, words separated by one space.
func (f *Features) Value(path string) (string, bool) {
	n := f.find(path)
	if n == nil {
		return "", false
	}
	return n.value, true
}

// Words are the words of a leaf.
func (f *Features) Words(path string) []string {
	v, _ := f.Value(path)
	return strings.Fields(v)
}

// BothHave tells whether both sets have the path: a class is compiled only when
// the policy's abi and the kernel both have it. A nil set has everything.
func BothHave(policy, kernel *Features, path string) bool {
	return (policy == nil || policy.Has(path)) && (kernel == nil || kernel.Has(path))
}

// String is the text form.
func (f *Features) String() string {
	var b strings.Builder
	for _, s := range f.root.sub {
		s.print(&b)
	}
	return b.String()
}

func (s feature) print(b *strings.Builder) {
	b.WriteString(s.name)
	b.WriteString(" {")
	b.WriteString(s.value)
	if s.value != "" && len(s.sub) > 0 {
		b.WriteByte(' ')
	}
	for _, sub := range s.sub {
		sub.print(b)
	}
	if s.value != "" {
		b.WriteByte('\n')
	}
	b.WriteString("}\n")
}
