// SPDX-License-Identifier: Apache-2.0

package laststep

const sysSeccompNumber = 277
