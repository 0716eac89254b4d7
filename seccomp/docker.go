// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	_ "embed"
	"sync"
)

//go:embed profiles/docker.json
var dockerJSON []byte

// DockerVersion names the release of github.com/moby/profiles/seccomp that the
// built-in profile is taken from.
const DockerVersion = "v0.3.0"

// Docker is Docker's default profile, as moby/profiles publishes it. It is read
// once; the Profile is shared and read-only.
var Docker = sync.OnceValue(func() *Profile {
	p, err := Parse("docker", dockerJSON)
	if err != nil {
		panic("built-in profile: " + err.Error())
	}
	return p
})

// DockerJSON is the text of the profile that Docker returns.
func DockerJSON() []byte { return append([]byte(nil), dockerJSON...) }
