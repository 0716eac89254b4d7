// SPDX-License-Identifier: Apache-2.0

package svirt

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Memory is a [Store] without a disk, for tests and dry runs. The zero value is
// empty and ready to use; it is safe for concurrent use.
type Memory struct {
	mu        sync.Mutex
	ids       map[string]Record
	levels    map[string]string
	irregular map[string]bool
}

// Update runs fn alone; when it fails, nothing of it stays.
func (m *Memory) Update(fn func(Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ids == nil {
		m.ids, m.levels, m.irregular = map[string]Record{}, map[string]string{}, map[string]bool{}
	}
	tx := &memoryTx{m: m}
	err := fn(tx)
	if err != nil {
		for _, undo := range slices.Backward(tx.undo) {
			undo()
		}
	}
	return err
}

// View runs fn on a consistent state.
func (m *Memory) View(fn func(Tx) error) error { return m.Update(fn) }

type memoryTx struct {
	m    *Memory
	undo []func()
}

func (t *memoryTx) ByID(id string) (Record, bool, error) {
	r, ok := t.m.ids[id]
	return r, ok, nil
}

func (t *memoryTx) ByLevel(level string) (Record, bool, error) {
	id, ok := t.m.levels[level]
	return t.m.ids[id], ok, nil
}

func (t *memoryTx) Put(r Record) error {
	if other, ok := t.m.levels[r.Level]; ok && r.Group == "" && other != r.ID {
		return fmt.Errorf("level %s is held by %s: %w", r.Level, other, ErrInUse)
	}
	if err := t.Delete(r.ID); err != nil {
		return err
	}
	t.put(r)
	t.undo = append(t.undo, func() { t.drop(r.ID) })
	return nil
}

func (t *memoryTx) put(r Record) {
	t.m.ids[r.ID] = r
	if r.Group == "" {
		t.m.levels[r.Level] = r.ID
		if !Regular(r.Level) {
			t.m.irregular[r.ID] = true
		}
	}
}

func (t *memoryTx) drop(id string) {
	if r := t.m.ids[id]; r.Group == "" {
		delete(t.m.levels, r.Level)
		delete(t.m.irregular, id)
	}
	delete(t.m.ids, id)
}

func (t *memoryTx) Delete(id string) error {
	if r, ok := t.m.ids[id]; ok {
		t.drop(id)
		t.undo = append(t.undo, func() { t.put(r) })
	}
	return nil
}

func (t *memoryTx) Each(fn func(Record) error) error {
	return t.each(slices.Sorted(maps.Keys(t.m.ids)), fn)
}

func (t *memoryTx) EachIrregular(fn func(Record) error) error {
	return t.each(slices.Sorted(maps.Keys(t.m.irregular)), fn)
}

func (t *memoryTx) EachOwn(prefix string, fn func(Record) error) error {
	for id, r := range t.m.ids {
		if !strings.HasPrefix(id, prefix) {
			continue
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func (t *memoryTx) each(ids []string, fn func(Record) error) error {
	for _, id := range ids {
		if err := fn(t.m.ids[id]); err != nil {
			return err
		}
	}
	return nil
}
