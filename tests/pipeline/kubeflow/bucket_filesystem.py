"""An object store for tests: Beam finds `bucket://name/path` in a local folder, which the tests set."""

from apache_beam.io.localfilesystem import LocalFileSystem


class BucketFileSystem(LocalFileSystem):
    """What the project asks of an object store through Beam, kept in `folder`."""

    folder = ""

    @classmethod
    def scheme(cls):
        return "bucket"

    def create(self, path, *arguments, **options):
        local = self._local(path)
        super().mkdirs(local.rpartition("/")[0]) if not super().exists(local.rpartition("/")[0]) else None
        return super().create(local, *arguments, **options)

    def exists(self, path):
        return super().exists(self._local(path))

    def _local(self, path):
        return f"{self.folder}/{path.partition('://')[2]}"
