/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/namei.h - what namei.c and rename.c share; nobody else includes it
 *
 * An exclusive i_rwsem of the directory (and of an inode whose link count
 * changes) must be held when calling any function below that takes a handle.
 */
#ifndef SLUICE_FS_NAMEI_H
#define SLUICE_FS_NAMEI_H

#include "fs/ext4.h"

/* Checks before a change of names: lengths, type, read-only; reclaims memory. */
int __must_check ext4_name_begin(struct inode *dir, const char *name, size_t len);
bool ext4_is_dots(const char *name, size_t len);
/* File type of a directory entry; 0 if the volume stores none. */
u8 ext4_ftype(const struct ext4_sb *sbi, u32 mode);
/* The inode that an entry of dir names, referenced; a hidden or deleted one is corruption. */
int __must_check ext4_get_named(struct ext4_inode *dir, ino_nr ino, struct inode **out);

/* -ENOENT (removed), -EPERM (immutable; append-only when removing). */
int __must_check ext4_may_change(const struct inode *dir, bool remove);
int __must_check ext4_may_remove(const struct inode *dir, const struct inode *victim);

bool ext4_dir_can_grow(const struct ext4_inode *dir); /* one more subdirectory? */
void ext4_dir_inc_nlink(struct ext4_inode *dir);
void ext4_dir_dec_nlink(struct ext4_inode *dir);
/* One name fewer, written; an orphan when it was the last (a directory: always). */
int __must_check ext4_drop_link(struct handle *h, struct ext4_inode *ei);
/*
 * err, of a step after the first change of a handle: the journal must not
 * commit what is half done. 0 and -EROFS (it won't, anyway) pass.
 */
int ext4_half_done(struct ext4_inode *dir, int err);
/* mtime and ctime now; written. */
int __must_check ext4_touch_dir(struct handle *h, struct ext4_inode *dir);

#endif
