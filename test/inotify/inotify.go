//go:build linux

// Package inotify uses up a user's inotify instances for a test.
package inotify

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Exhaust takes all inotify instances that the user may have (fs.inotify.max_user_instances), until release is called. They count for the
// user that opens them, which a single thread can be (setresuid(2): "C library/kernel differences"). It needs root. Choose a user without
// other processes.
func Exhaust(uid int) (release func(), err error) {
	var instances []int
	release = func() {
		for _, fd := range instances {
			_ = unix.Close(fd)
		}
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		const same = ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
			done <- errno
			return
		}
		for {
			fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
			if err != nil {
				done <- err
				return
			}
			instances = append(instances, fd)
		}
	}()
	if err := <-done; !errors.Is(err, unix.EMFILE) {
		release()
		return nil, fmt.Errorf("taking all inotify instances of user %d: after %d of them: %w", uid, len(instances), err)
	}
	return release, nil
}
