// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestConfirmPolicy(t *testing.T) {
	b := Policy(t, "default", nil)
	got, err := os.ReadFile(b.Policy)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(got, []byte("\x8c\xff\x7c\xf9\x08\x00\x00\x00SE Linux\x21\x00\x00\x00")) {
		t.Errorf("no kernel policy of version 33: % x", got[:24])
	}
	if fi, err := os.Stat(filepath.Join(PolicyTree(t, "default"), "contexts", "lxc_contexts")); err != nil || fi.Size() == 0 {
		t.Errorf("lxc_contexts: %v", err)
	}
	if _, msg, err := TryPolicy(t, "default", map[string][]byte{"wrong": []byte("(allow nosuch_t self (process (fork)))")}); err == nil {
		t.Errorf("a module with an unknown type compiled: %s", msg)
	}
}
