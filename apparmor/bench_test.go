// SPDX-License-Identifier: Apache-2.0

package apparmor

import "testing"

// BenchmarkResolve is text to resolved profile, without compiling: docker-default,
// and a profile with the base abstraction and all tunables.
func BenchmarkResolve(b *testing.B) {
	for name, text := range map[string]string{
		"docker-default": string(ContainerProfile{}.Text()),
		"base":           "abi <abi/3.0>,\ninclude <tunables/global>\nprofile p /p {\n include <abstractions/base>\n}\n",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f, diags := Parse("p", []byte(text))
				if diags.HasErrors() {
					b.Fatal(diags)
				}
				if _, diags = Resolve(f, Env{SkipExecCheck: true}); diags.HasErrors() {
					b.Fatal(diags)
				}
			}
		})
	}
}
