// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/palisade-sec/palisade/internal/state"
)

// maxShown bounds what a runtime says of its containers in bytes.
const maxShown = 64 << 20

// show lets the runtime say what containers there are. It knows the folders that it
// was given as bundles: the engine is told of its own. Nothing of it decides
// anything, so what is not known of a container stays as the runtime says it.
func (w *wrapper) show() (int, error) {
	dir, err := state.Open(w.cfg.State)
	if err != nil {
		return 0, w.replace()
	}
	w.dir = dir
	records := w.shown()
	if len(records) == 0 {
		return 0, w.replace()
	}
	r, out, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	rt := w.launchRuntime(nil)
	rt.Files[1] = out
	rt.Started = func() { out.Close() }
	type said struct {
		text []byte
		err  error
	}
	all := make(chan said, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(r, maxShown+1))
		if err == nil && len(text) > maxShown {
			err = fmt.Errorf("%s: more than %d bytes", w.call.Command, maxShown)
			r.Close()
		}
		all <- said{text, err}
	}()
	code, err := rt.Run()
	out.Close() // of a runtime that was not started
	got := <-all
	if err := errors.Join(err, got.err); err != nil {
		return code, err
	}
	_, err = os.Stdout.WriteString(w.engineBundles(string(got.text), records))
	return code, err
}

// shown are the records of the containers that the command is about.
func (w *wrapper) shown() []state.Record {
	if w.call.ID != "" {
		rec, err := w.dir.Lookup(w.root(), w.call.ID)
		if err != nil {
			return nil
		}
		return []state.Record{rec}
	}
	all, err := w.dir.List()
	if err != nil {
		return nil
	}
	var out []state.Record
	for _, rec := range all {
		if rec.Runtime.Root == w.root() {
			out = append(out, rec)
		}
	}
	return out
}

// engineBundles puts the engine's bundles in the place of those that the runtime was
// given: in JSON as strings, in a table as the column that they are.
func (w *wrapper) engineBundles(text string, records []state.Record) string {
	table := !strings.ContainsAny(strings.TrimSpace(text[:min(len(text), 1)]), "{[")
	var pairs []string
	for _, rec := range records {
		ours, theirs := given(w.dir, rec.Key), rec.Bundle.Path
		if table {
			// The columns behind stay where they were, as far as there is room.
			if pad := len(ours) - len(theirs); pad > 0 {
				theirs += strings.Repeat(" ", pad)
			}
			pairs = append(pairs, ours+" ", theirs+" ")
			continue
		}
		pairs = append(pairs, quoted(ours), quoted(theirs))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func quoted(s string) string {
	b, _ := json.Marshal(s) // strings never fail
	return string(b)
}
