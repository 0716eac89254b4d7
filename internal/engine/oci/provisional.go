// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/bundle"
	"github.com/palisade-sec/palisade/internal/effective"
	"github.com/palisade-sec/palisade/internal/launch"
	old "github.com/palisade-sec/palisade/runtime/oci"
)

func Decode(raw []byte) (*specs.Spec, error)           { return old.Decode(raw) }
func DecodeProcess(raw []byte) (*specs.Process, error) { return old.DecodeProcess(raw) }

func Edit(raw []byte, c bundle.Confinement, dir string) ([]byte, *specs.Spec, error) {
	b, s, err := old.Edit(raw, c)
	if err != nil {
		return nil, nil, err
	}
	var t map[string]json.RawMessage
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, nil, err
	}
	if s.Root != nil && !filepath.IsAbs(s.Root.Path) {
		s.Root.Path = filepath.Join(dir, s.Root.Path)
		t["root"], _ = json.Marshal(s.Root)
	}
	b, err = json.Marshal(t)
	return b, s, err
}

func EditProcess(raw []byte, c bundle.Confinement) ([]byte, *specs.Process, error) {
	b, err := old.EditProcess(raw, c)
	if err != nil {
		return nil, nil, err
	}
	p, err := old.DecodeProcess(b)
	return b, p, err
}

func (w *wrapper) demands(g *given, r *launch.Request) error { return nil }
func (w *wrapper) refuseMounts(g *given) error               { return nil }
func asked(s *specs.Spec) effective.State                    { return effective.Asked(s) }

func addEnvTo(raw []byte, env []string) ([]byte, error) {
	var t map[string]json.RawMessage
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, err
	}
	var have []string
	if e := t["env"]; e != nil {
		if err := json.Unmarshal(e, &have); err != nil {
			return nil, err
		}
	}
	t["env"], _ = json.Marshal(append(have, env...))
	return json.Marshal(t)
}

func addEnv(raw []byte, env []string) ([]byte, error) {
	var t map[string]json.RawMessage
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, err
	}
	p, err := addEnvTo(t["process"], env)
	if err != nil {
		return nil, err
	}
	t["process"] = p
	return json.Marshal(t)
}

const maxFile = 16 << 20

// readFile reads a file that an engine wrote, whatever it is: a file, a link to one,
// or a pipe.
func readFile(path string) (*os.File, []byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, b, nil
}
