package controller

import (
	"reflect"
)

// maxCachedSpec is how large the spec of a Task may be in memory to be cached: some forty ordinary steps. Of larger ones, of which a tenant
// may have many, every replica would keep megabytes that the controllers need once, when they create the Pod: they read those then.
const maxCachedSpec = 64 << 10

// isLarger reports whether the values that v refers to take more bytes of memory than a bound, about. It looks at no more than that.
func isLarger(v any, bound int) bool {
	return heap(reflect.ValueOf(v), &bound)
}

// heap takes off left what a value has on the heap, and reports whether it is used up.
func heap(v reflect.Value, left *int) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return false
		}
		return take(int(v.Elem().Type().Size()), left) || heap(v.Elem(), left)
	case reflect.String:
		return take(v.Len(), left)
	case reflect.Slice:
		if take(v.Cap()*int(v.Type().Elem().Size()), left) {
			return true
		}
		for i := range v.Len() {
			if heap(v.Index(i), left) {
				return true
			}
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			size := int(v.Type().Key().Size() + v.Type().Elem().Size())
			if take(size, left) || heap(entries.Key(), left) || heap(entries.Value(), left) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() { //nolint:modernize // Fields takes five times as long
			if heap(v.Field(i), left) {
				return true
			}
		}
	}
	return false
}

func take(size int, left *int) bool {
	*left -= size
	return *left < 0
}
