package controller

// The permissions of the controllers. make generate writes the ClusterRole from these markers. docs/security.md says what each is for.
//
// +kubebuilder:rbac:groups=api.practice.com,resources=tasks,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=api.practice.com,resources=tasks/status,verbs=patch
// +kubebuilder:rbac:groups=api.practice.com,resources=tasks/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=secrets;serviceaccounts,verbs=get
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get;create
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;list
