// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/bundle"
)

// MaxConfig bounds the size of a configuration in bytes. The largest that
// engines write are some 100 KiB.
const MaxConfig = 16 << 20

// SyntaxError is a configuration that is not what the specification says, with
// the place where reading ended, counted from 1 in lines and bytes.
type SyntaxError struct {
	Line, Column int
	Err          error
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %v", e.Line, e.Column, e.Err)
}

func (e *SyntaxError) Unwrap() error { return e.Err }

// decode reads JSON and turns offsets into places.
func decode(raw []byte, v any) error {
	if len(raw) > MaxConfig {
		return fmt.Errorf("%d bytes are more than the %d that a configuration may have", len(raw), MaxConfig)
	}
	err := json.Unmarshal(raw, v)
	if err == nil {
		return nil
	}
	offset := int64(-1)
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &typ):
		offset = typ.Offset
	}
	if offset < 0 || offset > int64(len(raw)) {
		return err
	}
	before := raw[:offset]
	return &SyntaxError{
		Line:   bytes.Count(before, []byte("\n")) + 1,
		Column: len(before) - bytes.LastIndexByte(before, '\n') - 1,
		Err:    err,
	}
}

// Decode reads a configuration. The error is a [*SyntaxError] where there is a
// place to point at.
func Decode(raw []byte) (*specs.Spec, error) {
	var s specs.Spec
	if err := decode(raw, &s); err != nil {
		return nil, fmt.Errorf("read OCI configuration: %w", err)
	}
	return &s, nil
}

// DecodeProcess reads the process of an exec, as [Decode] reads a configuration.
func DecodeProcess(raw []byte) (*specs.Process, error) {
	var p specs.Process
	if err := decode(raw, &p); err != nil {
		return nil, fmt.Errorf("read OCI process: %w", err)
	}
	return &p, nil
}

// tree is a JSON object whose members are left as they were written.
type tree map[string]json.RawMessage

func (t tree) set(name string, v any, keepEmpty bool) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	switch s := string(b); {
	case !keepEmpty && (s == "null" || s == `""` || s == "[]" || s == "{}" || s == "false"):
		delete(t, name)
	default:
		t[name] = b
	}
	return nil
}

// sub edits the object that is a member of t.
func (t tree) sub(name string, edit func(tree) error) error {
	inner := tree{}
	if raw := t[name]; raw != nil && string(raw) != "null" {
		if err := json.Unmarshal(raw, &inner); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := edit(inner); err != nil {
		return err
	}
	return t.set(name, inner, true)
}

func (t tree) setProcess(p *specs.Process) error {
	return errors.Join(
		t.set("args", p.Args, false),
		t.set("capabilities", p.Capabilities, true),
		t.set("noNewPrivileges", p.NoNewPrivileges, false),
		t.set("selinuxLabel", p.SelinuxLabel, false),
		t.set("apparmorProfile", p.ApparmorProfile, false),
	)
}

// Edit is [Apply] on the text of config.json. Members that Apply does not own
// stay byte for byte what they were; their order may change.
func Edit(raw []byte, c bundle.Confinement) ([]byte, *specs.Spec, error) {
	s, err := Decode(raw)
	if err != nil {
		return nil, nil, err
	}
	if err := Apply(s, c); err != nil {
		return nil, nil, err
	}
	top := tree{}
	if err := json.Unmarshal(raw, &top); err != nil {
		return nil, nil, err
	}
	err = errors.Join(
		top.sub("process", func(t tree) error { return t.setProcess(s.Process) }),
		top.sub("linux", func(t tree) error {
			err := errors.Join(
				t.set("maskedPaths", s.Linux.MaskedPaths, false),
				t.set("readonlyPaths", s.Linux.ReadonlyPaths, false),
				t.set("mountLabel", s.Linux.MountLabel, false),
			)
			if c.Seccomp != bundle.SeccompKeep {
				err = errors.Join(err, t.set("seccomp", s.Linux.Seccomp, false))
			}
			return err
		}),
		top.set("annotations", s.Annotations, false),
	)
	if s.Root != nil {
		err = errors.Join(err, top.sub("root", func(t tree) error { return t.set("readonly", s.Root.Readonly, false) }))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("edit OCI configuration: %w", err)
	}
	out, err := json.Marshal(top)
	if err != nil {
		return nil, nil, fmt.Errorf("write OCI configuration: %w", err)
	}
	return out, s, nil
}

// EditProcess is [ApplyProcess] on the text that an exec is given.
func EditProcess(raw []byte, c bundle.Confinement) ([]byte, error) {
	p, err := DecodeProcess(raw)
	if err != nil {
		return nil, err
	}
	ApplyProcess(p, c)
	t := tree{}
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, err
	}
	if err := t.setProcess(p); err != nil {
		return nil, fmt.Errorf("edit OCI process: %w", err)
	}
	return json.Marshal(t)
}
