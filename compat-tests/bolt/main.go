// Command bolt makes files with the real bbolt and looks at ours with it.
//
//	bolt make FOLDER     the fixtures of crates/bolt
//	bolt check FILE      bbolt's own check, then everything in it as one line per pair
//	bolt change FILE     deletes and puts in a writable transaction, then checks
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "bolt make FOLDER | check FILE | change FILE")
		os.Exit(2)
	}
	commands := map[string]func(string) error{"make": makeAll, "check": check, "change": change}
	if err := commands[os.Args[1]](os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// makeAll writes one file for each page size; one of them does not store the list of free pages, as etcd's.
func makeAll(folder string) error {
	for pageSize, stored := range map[int]bool{1024: true, 4096: true, 16384: false} {
		if err := makeOne(filepath.Join(folder, fmt.Sprintf("pages-%d.db", pageSize)), pageSize, stored); err != nil {
			return err
		}
	}
	return nil
}

func makeOne(path string, pageSize int, stored bool) error {
	os.Remove(path)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize, NoFreelistSync: !stored})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Update(fill); err != nil {
		return err
	}
	// Leaves free pages behind.
	if err := db.Update(func(tx *bbolt.Tx) error { return thin(tx.Bucket([]byte("many"))) }); err != nil {
		return err
	}
	var whole bytes.Buffer
	// Written through WriteTo a file has no unused end.
	if err := db.View(func(tx *bbolt.Tx) error { _, err := tx.WriteTo(&whole); return err }); err != nil {
		return err
	}
	return os.WriteFile(path, whole.Bytes(), 0o600)
}

func fill(tx *bbolt.Tx) error {
	for name, count := range map[string]int{"empty": 0, "few": 3, "many": 700} {
		bucket, err := tx.CreateBucket([]byte(name))
		if err != nil {
			return err
		}
		for i := range count {
			if err := bucket.Put(fmt.Appendf(nil, "key %05d", i), fmt.Appendf(nil, "value %d", i)); err != nil {
				return err
			}
		}
	}
	large, err := tx.CreateBucket([]byte("large"))
	if err != nil {
		return err
	}
	for i := range 3 {
		if err := large.Put(fmt.Appendf(nil, "key %05d", i), bytes.Repeat([]byte{byte('a' + i)}, 5000+i)); err != nil {
			return err
		}
	}
	nested, err := tx.Bucket([]byte("few")).CreateBucket([]byte("nested"))
	if err != nil {
		return err
	}
	return nested.Put([]byte("inner"), []byte("value"))
}

func thin(bucket *bbolt.Bucket) error {
	for i := range 300 {
		if err := bucket.Delete(fmt.Appendf(nil, "key %05d", 2*i)); err != nil {
			return err
		}
	}
	return nil
}

func check(path string) error {
	db, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		if err := sound(tx); err != nil {
			return err
		}
		return tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			fmt.Printf("%q: %d pairs\n", name, bucket.Stats().KeyN)
			return nil
		})
	})
}

func sound(tx *bbolt.Tx) error {
	var found []error
	for err := range tx.Check() {
		found = append(found, err)
	}
	return errors.Join(found...)
}

// change deletes three of four pairs of each bucket and puts as many others: what is written must be a base to go
// on from.
func change(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		return err
	}
	defer db.Close()
	for round := range 3 {
		if err := db.Update(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error { return changeBucket(bucket, round) })
		}); err != nil {
			return err
		}
		if err := db.View(sound); err != nil {
			return err
		}
	}
	return nil
}

func changeBucket(bucket *bbolt.Bucket, round int) error {
	var keys [][]byte
	err := bucket.ForEach(func(key, _ []byte) error { keys = append(keys, bytes.Clone(key)); return nil })
	if err != nil {
		return err
	}
	for i, key := range keys {
		if i%4 == round {
			continue
		}
		if err := bucket.Delete(key); err != nil {
			return err
		}
		if err := bucket.Put(append(key, 'x'), []byte("changed")); err != nil {
			return err
		}
	}
	return nil
}
