// SPDX-License-Identifier: Apache-2.0

package escapes

// rowsRelatives are of the kind of a public weakness, but not it.
var rowsRelatives = []row{}
