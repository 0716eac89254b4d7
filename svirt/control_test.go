// SPDX-License-Identifier: Apache-2.0

package svirt

import (
	"testing"

	goselinux "github.com/opencontainers/selinux/go-selinux"

	"github.com/palisade-sec/palisade/selinux"
)

// TestConfirmControl puts the library that container engines share through what
// the model demands. It fails it: labels that meet are both given out. So the
// model can tell a registry that keeps containers apart from one that does not.
func TestConfirmControl(t *testing.T) {
	goselinux.ClearLabels()
	defer goselinux.ClearLabels()
	held := []string{"s0:c1,c2"}
	if err := goselinux.ReserveLabelV2("system_u:system_r:container_t:" + held[0]); err != nil {
		t.Skipf("the library reserves nothing on this system: %v", err)
	}
	met := 0
	for _, asked := range []string{"s0:c2,c1", "s0:c1,c2,c3", "s0:c1", "s0:c0.c1023"} {
		if err := goselinux.ReserveLabelV2("system_u:system_r:container_t:" + asked); err == nil {
			met++
		}
		// The registry refuses each of them.
		r := &Registry{Store: &Memory{}}
		if _, err := r.Reserve(Claim{ID: "a", Level: held[0]}); err != nil {
			t.Fatal(err)
		}
		if rec, err := r.Reserve(Claim{ID: "b", Level: asked}); err == nil {
			t.Errorf("%s was given out beside %s", rec.Level, held[0])
		}
		a, err1 := selinux.ParseLevel(held[0])
		b, err2 := selinux.ParseLevel(asked)
		if err1 != nil || err2 != nil || a.Compare(b) == selinux.Incomparable {
			t.Errorf("%s and %s do not meet: the control controls nothing", held[0], asked)
		}
	}
	if met == 0 {
		t.Error("the control passes: either it was mended or the test looks at the wrong thing")
	}
	t.Logf("go-selinux gave out %d of 4 labels that meet one in use", met)
}
