/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORDS_H
#define WORDS_H

#include <stdint.h>

/* words describes an error number, or is NULL for one without words. */
const char *words(int number);

#endif
