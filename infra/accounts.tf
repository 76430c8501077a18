# One service account per component, with only the permissions that it needs. None of them is an
# editor or a storage administrator.
locals {
  accounts = {
    launch = "Launches runs"
    report = "Updates the status of runs"
    status = "Serves the status pages"
    worker = "Makes products"
    events = "Delivers events to the functions"
  }

  # bucket → role → accounts
  bucket_roles = {
    "requests/roles/storage.objectViewer" = ["worker"]
    "requests/roles/storage.objectUser"   = ["launch"] # says beside a standing request why it is not valid
    "state/roles/storage.objectViewer"    = ["status"]
    "state/roles/storage.objectUser"      = ["launch", "report", "worker"]
    "products/roles/storage.objectViewer" = ["launch", "report", "status"]
    "products/roles/storage.objectUser"   = ["worker"]
  }
  bucket_members = merge([
    for key, members in local.bucket_roles : {
      for member in members : "${key}/${member}" => {
        bucket = split("/", key)[0]
        role   = join("/", slice(split("/", key), 1, 3))
        member = member
      }
    }
  ]...)

  project_roles = {
    "launch/roles/dataflow.developer"      = "launch" # launch templates, list jobs by name
    "report/roles/dataflow.viewer"         = "report"
    "worker/roles/dataflow.worker"         = "worker"
    "events/roles/eventarc.eventReceiver"  = "events"
    "worker/roles/artifactregistry.reader" = "worker"
  }
}

resource "google_service_account" "this" {
  for_each     = local.accounts
  account_id   = "${var.name}-${each.key}"
  display_name = "${var.name}: ${each.value}"
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = local.bucket_members
  bucket   = google_storage_bucket.this[each.value.bucket].name
  role     = each.value.role
  member   = google_service_account.this[each.value.member].member
}

resource "google_project_iam_member" "this" {
  for_each = local.project_roles
  project  = var.project
  role     = join("/", slice(split("/", each.key), 1, 3))
  member   = google_service_account.this[each.value].member
}

# Jobs run as the worker account, so `launch` must be allowed to act as it.
resource "google_service_account_iam_member" "launch_as_worker" {
  service_account_id = google_service_account.this["worker"].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.this["launch"].member
}

# Workers read the accounts of catalogs themselves; no option, plan or log holds them.
resource "google_secret_manager_secret_iam_member" "worker" {
  for_each  = var.secrets
  secret_id = each.value
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.this["worker"].member
}
