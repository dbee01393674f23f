/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/layer_main.c - the main() of the layer-* programs, which only link
 *
 * A static library may call upwards unseen: the final program has all symbols.
 * Each layer-* program takes in one layer and all below it, whole; a call
 * upwards leaves it with an undefined symbol and the build fails.
 */
int main(void)
{
	return 0;
}
