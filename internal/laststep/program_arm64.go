// SPDX-License-Identifier: Apache-2.0

package laststep

import _ "embed"

//go:embed step-arm64.bin
var program []byte
