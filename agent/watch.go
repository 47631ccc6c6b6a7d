//go:build linux

package agent

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watch is a directory and what happens in it that is of interest, beside its own end.
type watch struct {
	dir    string
	events uint32
	// mayBeMissing is for a directory in one that is watched for new ones.
	mayBeMissing bool
}

const (
	// projected covers the kubelet's swap of "..data" (MOVED_TO), the links that it makes after its first
	// swap (CREATE), and files written in place.
	projected = unix.IN_MOVED_TO | unix.IN_CREATE | unix.IN_CLOSE_WRITE
	// gone is the directory itself going away.
	gone = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

// watcher tells of changes in directories. A nil watcher can't: inotify is not to be had (a UID has
// 128 instances by default, fs.inotify.max_user_instances) or a directory does not exist.
type watcher struct {
	inotify *os.File
	buffer  [4096]byte // more than the longest event, inotify(7)
	release func() bool
}

// renew returns a watcher of all the directories, made from this one if it can be, or nil. Cancelling
// the context of the call that made it ends changed.
func (w *watcher) renew(ctx context.Context, watches []watch) *watcher {
	if w == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil
		}
		// Non-blocking, so Go's poller waits for it: that parks the goroutine and Close wakes it.
		inotify := os.NewFile(uintptr(fd), "inotify")
		w = &watcher{inotify: inotify}
		w.release = context.AfterFunc(ctx, func() { inotify.Close() })
	}
	if err := w.add(watches); err != nil {
		w.close()
		return nil
	}
	return w
}

// add watches the directories. For one that is already watched the kernel changes nothing.
func (w *watcher) add(watches []watch) error {
	conn, err := w.inotify.SyscallConn()
	if err != nil {
		return err
	}
	for _, watch := range watches {
		var addErr error
		err := conn.Control(func(fd uintptr) {
			_, addErr = unix.InotifyAddWatch(int(fd), watch.dir, watch.events|gone|unix.IN_ONLYDIR)
		})
		if watch.mayBeMissing && errors.Is(addErr, unix.ENOENT) {
			addErr = nil
		}
		if err := errors.Join(err, addErr); err != nil {
			return err
		}
	}
	return nil
}

// changed blocks until something may have changed: after an event or after the given time. It returns
// false where the watcher is of no use, at once.
func (w *watcher) changed(within time.Duration) bool {
	if w == nil || w.inotify.SetReadDeadline(time.Now().Add(within)) != nil {
		return false
	}
	// Which event it was does not matter, even an overflow: the files are read again.
	_, err := w.inotify.Read(w.buffer[:])
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

func (w *watcher) close() {
	if w != nil {
		w.release()
		w.inotify.Close()
	}
}
